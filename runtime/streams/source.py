"""A text → the source that it names: `clip.mp4`, `rtsp://…`, `0`, `csi://0`, `gst:…`, `seq:folder`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from vptkit.paths.hidden_secrets import redacted

from .frame import StreamError
from .gstreamer_library import has_board_decoder
from .gstreamer_source import GstreamerSource, camera_pipeline
from .image_sequence_source import ImageSequenceSource
from .pyav_source import PyavSource
from .source_address import source_address
from .source_protocol import Picture, Source, SourceOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .source_address import Address

__all__ = ["Picture", "Source", "SourceOptions", "is_stream", "open_source", "open_sources"]


def is_stream(text: str) -> bool:
    """Whether a text names a video, a camera or a stream, and not images or a folder of them.

    Raises:
        StreamError: it begins like one, and isn't one.
    """
    return source_address(text) is not None


def open_source(text: str, *, options: SourceOptions | None = None) -> Source:
    """The source that a text names. Nothing is opened before its frames are asked for.

    Args:
        text: as users write it, with `NAME=` before it if it shall be called so.
        options: how it is opened.

    Raises:
        StreamError: it names no stream.
    """
    address = source_address(text)
    if address is None:
        raise StreamError(
            f"{redacted(text)}: no video and no camera: expected a video file, rtsp://…, /dev/video0, 0, "
            "csi://0, gst:PIPELINE, frames/%05d.png or seq:FOLDER"
        )
    return _source(address, options or SourceOptions())


def open_sources(texts: Iterable[str], *, options: SourceOptions | None = None) -> list[Source]:
    """The sources of several texts; of those with the same name the later ones are numbered.

    Raises:
        StreamError: one names no stream.
    """
    sources = [open_source(text, options=options) for text in texts]
    seen = Counter[str]()
    taken = {source.name for source in sources}
    for source in sources:
        seen[source.name] += 1
        if seen[source.name] > 1:
            source.name = _free_name(source.name, seen[source.name], taken)
            taken.add(source.name)
    return sources


def _free_name(name: str, number: int, taken: set[str]) -> str:
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"


def _source(address: Address, options: SourceOptions) -> Source:
    place, target, name = address
    if place == "sequence":
        return ImageSequenceSource(target, name)
    if place == "gst":
        return GstreamerSource(target, name, options)
    if place == "csi":
        return GstreamerSource(camera_pipeline(int(target), options), name, options)
    gstreamer = options.decoder == "gstreamer" or (
        options.decoder == "auto" and has_board_decoder()
    )
    if gstreamer and place != "v4l2":
        return GstreamerSource(target, name, options, decodes=place)
    return PyavSource(target, name, options, place)
