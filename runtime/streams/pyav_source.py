"""Files, network streams and V4L2 cameras through PyAV, which brings FFmpeg along."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from vptkit.errors import MissingExtraError
from vptkit.paths.hidden_secrets import without_secrets
from vptkit.paths.path_kind import VIDEO_SUFFIXES
from vptkit.regular_files import is_file

from .frame import StreamError
from .source_protocol import Picture

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from .source_protocol import SourceOptions

__all__ = ["PyavSource"]

_MICROSECONDS = 1e6
_MAX_ARRIVALS = 256  # packets inside a decoder; of a broken stream not all come out
_UNTIMED = 1 << 62
# A file that is a list of others in disguise reaches nothing but files.
_FILE_PROTOCOLS = "file,crypto,data"
_LIST_PROTOCOLS = "file,crypto,data,http,https,tcp,tls"
_REFUSED = ("HTTPUnauthorizedError", "HTTPForbiddenError", "ProtocolNotFoundError")


class PyavSource:
    """A source that FFmpeg reads. See `vptkit.runtime.streams.source_protocol.Source`."""

    def __init__(self, target: str, name: str, options: SourceOptions, place: str) -> None:
        self.name = name
        self.live = place != "file" and not _is_clip(target)
        self._target = target
        self._options = options
        self._place = place
        self._closed = threading.Event()

    def frames(self) -> Iterator[Picture]:
        """Its pictures; see `Source`."""
        av = _pyav()
        if self._place == "file":
            self._require_file()
        count = 0
        try:
            with self._container(av) as container:
                try:
                    for picture in self._pictures(av, container):
                        count += 1
                        yield picture
                finally:
                    _let_threads_rest(av, container)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._error(error) from None  # its text and its traceback hold the URL
        if self._closed.is_set():
            return
        if not count:
            raise StreamError(f"{self.name}: no frames in this video", lasting=not self.live)
        if self.live and not self._target.startswith("http"):  # a list of HLS says when it is over
            raise StreamError(f"{self.name}: the stream ended")

    def close(self) -> None:
        """End after the frame that is awaited, or its time limit; see `Source`."""
        self._closed.set()

    def _container(self, av: Any) -> Any:
        target, options, form = self._target, {}, None
        if self._place == "v4l2":
            form, options = "v4l2", _camera_options(self._options)
        elif self._place == "network":
            options = _network_options(target, self._options)
        else:
            listed = target.lower().endswith(".m3u8")
            options["protocol_whitelist"] = _LIST_PROTOCOLS if listed else _FILE_PROTOCOLS
            target = f"file:{target}"  # a name may hold what looks like a scheme
        limits = (
            (self._options.open_timeout, self._options.read_timeout)
            if self._place != "file"
            else None
        )
        return av.open(
            target, format=form, options=options, timeout=limits, metadata_errors="replace"
        )

    def _pictures(self, av: Any, container: Any) -> Iterator[Picture]:
        stream = self._video(container)
        if self.live:
            stream.codec_context.flags |= int(av.codec.context.Flags.low_delay)
            stream.thread_type = "SLICE"  # threads by frames hold back as many frames
        else:
            stream.thread_type = "AUTO"
        reformatter = av.video.reformatter.VideoReformatter()
        arrivals: dict[int, float] = {}  # presentation time → when its packet came
        for packet in container.demux(stream):
            if self._closed.is_set():
                return
            now = time.monotonic()
            if packet.pts is not None:
                arrivals[packet.pts] = now
                if len(arrivals) > _MAX_ARRIVALS:
                    arrivals.pop(next(iter(arrivals)))
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                yield Picture(now, None, self._broken)
                continue
            for frame in frames:
                read = functools.partial(self._pixels, reformatter, frame)
                pts = _UNTIMED if frame.pts is None else frame.pts
                yield Picture(arrivals.pop(pts, now), frame.time, read)

    def _video(self, container: Any) -> Any:
        """Its first video that is not the cover of a piece of music."""
        videos = [v for v in container.streams.video if not v.disposition.value & _ATTACHED]
        if not videos:
            what = "sound, but no video" if container.streams.audio else "no video"
            raise StreamError(f"{self.name}: holds {what}", lasting=not self.live)
        return max(videos, key=lambda video: bool(video.disposition.value & _DEFAULT))

    def _pixels(self, reformatter: Any, frame: Any) -> NDArray[np.uint8]:
        """RGB as the frame's own matrix and range say, turned upright."""
        try:
            pixels: NDArray[np.uint8] = reformatter.reformat(frame, format="rgb24").to_ndarray()
        except (OSError, ValueError) as error:  # PyAV's errors are both
            raise StreamError(f"{self.name}: a broken frame ({type(error).__name__})") from None
        turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels

    def _broken(self) -> NDArray[np.uint8]:
        raise StreamError(f"{self.name}: a broken frame")

    def _require_file(self) -> None:
        path = Path(self._target)
        if not is_file(path):
            what = "not a regular file" if path.exists() else "no such file"
            raise StreamError(f"{self.name}: {what}", lasting=True)
        if not path.stat().st_size:
            raise StreamError(f"{self.name}: an empty file", lasting=True)

    def _error(self, error: Exception) -> StreamError:
        kind = type(error).__name__
        reason = getattr(error, "strerror", None) or str(error)
        if kind == "ExitError":
            reason = f"nothing came for {self._options.read_timeout:g} s"
        if kind == "FileNotFoundError" and self._place == "v4l2":
            reason = f"no such camera; there are: {', '.join(_cameras()) or 'none'}"
        if kind == "InvalidDataError" and not self.live:
            reason = "no video that FFmpeg can read, or a truncated one"
        if kind == "EOFError" and not self.live:
            reason = "no frames in this video"
        text = without_secrets(f"{self.name}: {reason}", self._target)
        return StreamError(text, lasting=not self.live or kind in _REFUSED)


_ATTACHED, _DEFAULT = 0x400, 0x1  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC and _DEFAULT


def _let_threads_rest(av: Any, container: Any) -> None:
    """Wait for the decoder's threads, with Python's lock open.

    PyAV ends them with the lock held, and one that was still at work may want it to give back what it
    held: both would wait for ever (seen once with PyAV 16.0.0).
    """
    for stream in container.streams.video:
        with contextlib.suppress(av.error.FFmpegError, ValueError):
            stream.codec_context.flush_buffers()


def _pyav() -> Any:
    try:
        import av
        import av.video.reformatter
    except ImportError as error:
        raise MissingExtraError("av", "streams", "reading a video or a camera") from error
    return av


def _is_clip(target: str) -> bool:
    """Whether a URL names a file, which waits for its reader, and not what happens now."""
    suffix = Path(urlsplit(target).path).suffix.lower()
    return target.startswith("http") and suffix in VIDEO_SUFFIXES and suffix != ".m3u8"


def _network_options(url: str, options: SourceOptions) -> dict[str, str]:
    """What keeps the delay low: no buffer of its own, a short look at what comes."""
    found = {"fflags": "nobuffer", "max_delay": "500000", "analyzeduration": "1000000"}
    if url.lower().startswith(("rtsp:", "rtsps:")):
        found["rtsp_transport"] = options.transport
        found["timeout"] = str(round(options.read_timeout * _MICROSECONDS))
    return found


def _camera_options(options: SourceOptions) -> dict[str, str]:
    found = {}
    if options.size is not None:
        found["video_size"] = f"{options.size[0]}x{options.size[1]}"
    if options.rate is not None:
        found["framerate"] = f"{options.rate:g}"
    return found


def _cameras() -> list[str]:
    return sorted(str(path) for path in Path("/dev").glob("video*"))
