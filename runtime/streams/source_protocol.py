"""What a source of pictures is, and what can be set about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Decoder", "Picture", "Source", "SourceOptions", "Transport"]

Transport = Literal["tcp", "udp"]
Decoder = Literal["auto", "pyav", "gstreamer"]


class Picture(NamedTuple):
    """A frame that is not converted yet: one that is dropped costs no conversion.

    Attributes:
        captured: `time.monotonic()` when its data was there, s.
        timestamp: presentation time, s; None where there is none.
        read: its pixels, uint8 [H, W, 3], RGB, upright; raises VptkitError where it is broken.
    """

    captured: float
    timestamp: float | None
    read: Callable[[], NDArray[np.uint8]]


class Source(Protocol):
    """A video, a camera or a stream.

    Attributes:
        name: as it is shown: without credentials.
        live: it goes on whether somebody looks or not; lost ones may come back.
    """

    name: str
    live: bool

    def frames(self) -> Iterator[Picture]:
        """Open it and give its pictures, up to its end. May be called again when it was lost.

        Raises:
            StreamError: it cannot be opened, or was lost; a camera that ends was lost.
            MissingError: a package or a plug-in that it needs is not installed.
        """

    def close(self) -> None:
        """End `frames` from another thread, as soon as what it waits for allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """How sources are opened.

    Attributes:
        transport: of RTSP. UDP loses packets where TCP waits for them.
        open_timeout: to wait for a connection, s.
        read_timeout: without any data, after which a stream counts as lost, s.
        size: width and height asked of a camera, pixels; None is its own choice.
        rate: frames a second asked of a camera; None is its own choice.
        decoder: "auto" takes GStreamer where it has a Jetson's decoder, else PyAV.
    """

    transport: Transport = "tcp"
    open_timeout: float = 10.0
    read_timeout: float = 5.0
    size: tuple[int, int] | None = None
    rate: float | None = None
    decoder: Decoder = "auto"
