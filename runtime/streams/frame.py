"""One picture of a video or a camera, with where and when it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vptkit.errors import VptkitError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Frame", "StreamError"]


class StreamError(VptkitError):
    """A video, a camera or a stream cannot be opened, or was lost on the way.

    Attributes:
        lasting: to open it again is of no use: a file is broken, a password was refused.
    """

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a source.

    Attributes:
        source: the name of its source as it is shown: unique, without credentials.
        number: 0, 1, …, as captured; frames that were dropped later count, too.
        captured: `time.monotonic()` when the frame was there, s: a frame's age begins here.
        wall: the same as seconds since 1970 (UTC).
        timestamp: presentation time in the file or stream, s; None where it has none.
        pixels: uint8 [H, W, 3], RGB, upright.
    """

    source: str
    number: int
    captured: float
    wall: float
    timestamp: float | None
    pixels: NDArray[np.uint8]
