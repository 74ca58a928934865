"""CSI cameras, pipelines of one's own, and the decoders of a board, through GStreamer.

What was tried: pipelines and files on a processor. `nvarguscamerasrc`, `nvvidconv` and `nvv4l2decoder`
were not: they need a Jetson.
"""

from __future__ import annotations

import functools
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.paths.hidden_secrets import without_secrets

from .frame import StreamError
from .gstreamer_library import gstreamer, missing_element
from .source_protocol import Picture

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from .source_protocol import SourceOptions

__all__ = ["GstreamerSource", "camera_pipeline"]

_TURN = "videoconvert ! videoflip video-direction=auto"  # as the file's metadata say
_SINK = "videoconvert ! video/x-raw,format=RGB"
_POLL_NS = 100_000_000
_NO_ELEMENT = re.compile(r'no element "([\w-]+)"')


def camera_pipeline(sensor: int, options: SourceOptions) -> str:
    """The pipeline of a Jetson's CSI camera: converted and copied out of NVMM by the board's own unit."""
    size = options.size or (1280, 720)
    rate = round(options.rate or 30)
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! "
        f"video/x-raw(memory:NVMM),width={size[0]},height={size[1]},framerate={rate}/1 ! "
        "nvvidconv ! video/x-raw,format=BGRx"
    )


class GstreamerSource:
    """A source that GStreamer reads. See `vptkit.runtime.streams.source_protocol.Source`."""

    def __init__(
        self, target: str, name: str, options: SourceOptions, *, decodes: str | None = None
    ) -> None:
        """Hold what to open.

        Args:
            target: a pipeline without its sink (or with an appsink for RGB); a path or URL.
            name: as it is shown.
            options: how it is opened.
            decodes: "file" or "network" where the target is a path or a URL; None for a pipeline.
        """
        self.name = name
        self.live = decodes != "file"
        self._target = target
        self._options = options
        self._decodes = decodes
        self._closed = threading.Event()

    def frames(self) -> Iterator[Picture]:
        """Its pictures; see `Source`."""
        if self._decodes == "file" and not Path(self._target).is_file():
            raise StreamError(f"{self.name}: no such file", lasting=True)
        gst = gstreamer()
        pipeline = self._pipeline(gst)
        sink = self._sink(pipeline)
        sink.set_property("sync", False)  # as soon as it is there; whoever reads sets the pace
        sink.set_property("max-buffers", 1 if self.live else 4)
        sink.set_property("drop", self.live)
        try:
            if pipeline.set_state(gst.State.PLAYING) == gst.StateChangeReturn.FAILURE:
                raise self._failure(gst, pipeline)
            yield from self._pulled(gst, pipeline, sink)
        finally:
            pipeline.set_state(gst.State.NULL)

    def close(self) -> None:
        """End within a tenth of a second; see `Source`."""
        self._closed.set()

    def _pipeline(self, gst: Any) -> Any:
        if self._decodes is not None:
            text = f"uridecodebin name=vptkit_in ! {_TURN} ! {_SINK} ! appsink"
        elif re.search(r"\bappsink\b", self._target):
            text = self._target
        else:
            text = f"{self._target} ! {_SINK} ! appsink"
        try:
            pipeline = gst.parse_launch(text)
        except Exception as error:  # GLib.Error
            message = str(getattr(error, "message", error))
            missing = _NO_ELEMENT.search(message)
            if missing:
                raise missing_element(self.name, missing[1]) from None
            raise StreamError(self._text(message), lasting=True) from None
        if not isinstance(pipeline, gst.Bin):
            raise StreamError(f"{self.name}: one element alone is no pipeline", lasting=True)
        if self._decodes is not None:
            url = self._target
            url = Path(url).absolute().as_uri() if self._decodes == "file" else url
            pipeline.get_by_name("vptkit_in").set_property("uri", url)
        return pipeline

    def _sink(self, pipeline: Any) -> Any:
        elements = pipeline.iterate_sinks()
        while True:
            _, element = elements.next()
            if element is None:
                raise StreamError(f"{self.name}: the pipeline has no appsink", lasting=True)
            if element.get_factory().get_name() == "appsink":
                return element

    def _pulled(self, gst: Any, pipeline: Any, sink: Any) -> Iterator[Picture]:
        count, last = 0, time.monotonic()
        bus = pipeline.get_bus()
        while not self._closed.is_set():
            sample = sink.emit("try-pull-sample", _POLL_NS)
            now = time.monotonic()
            if sample is not None:
                count, last = count + 1, now
                yield self._picture(gst, sample, now)
                continue
            self._raise_failure(gst, bus)
            if sink.get_property("eos"):
                if not count:
                    raise StreamError(
                        f"{self.name}: no frames in this video", lasting=not self.live
                    )
                return
            limit = self._options.read_timeout if count else self._options.open_timeout
            if now - last > limit:
                raise StreamError(f"{self.name}: nothing came for {limit:g} s")

    def _picture(self, gst: Any, sample: Any, now: float) -> Picture:
        pts = sample.get_buffer().pts
        timestamp = None if pts == gst.CLOCK_TIME_NONE else pts / gst.SECOND
        return Picture(now, timestamp, functools.partial(self._pixels, gst, sample))

    def _pixels(self, gst: Any, sample: Any) -> NDArray[np.uint8]:
        form = sample.get_caps().get_structure(0)
        width, height = form.get_value("width"), form.get_value("height")
        if form.get_value("format") != "RGB":
            raise StreamError(f"{self.name}: {form.get_value('format')}: the appsink must get RGB")
        buffer = sample.get_buffer()
        fits, view = buffer.map(gst.MapFlags.READ)
        if not fits:
            raise StreamError(f"{self.name}: a frame whose memory can't be read (NVMM?)")
        try:
            rows = -(-width * 3 // 4) * 4  # bytes; GStreamer's rows begin at multiples of four
            content = np.frombuffer(view.data, np.uint8)
            if content.size < rows * (height - 1) + width * 3:
                raise StreamError(f"{self.name}: a broken frame")
            whole = np.zeros(rows * height, np.uint8)
            whole[: content.size] = content[: whole.size]
        finally:
            buffer.unmap(view)
        return np.ascontiguousarray(whole.reshape(height, rows)[:, : width * 3]).reshape(
            height, width, 3
        )

    def _raise_failure(self, gst: Any, bus: Any) -> None:
        message = bus.pop_filtered(gst.MessageType.ERROR)
        if message is not None:
            error, _ = message.parse_error()
            missing = error.matches(gst.CoreError.quark(), gst.CoreError.MISSING_PLUGIN)
            raise StreamError(self._text(error.message), lasting=missing or not self.live)

    def _failure(self, gst: Any, pipeline: Any) -> StreamError:
        try:
            self._raise_failure(gst, pipeline.get_bus())
        except StreamError as error:
            return error
        return StreamError(f"{self.name}: the pipeline does not start", lasting=not self.live)

    def _text(self, message: str) -> str:
        return without_secrets(f"{self.name}: {message}", self._target)
