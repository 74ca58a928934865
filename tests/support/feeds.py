"""Sources that a test plays by hand, with a clock that stands still until it is moved."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from vptkit.runtime.streams.capture import Counts
from vptkit.runtime.streams.capture_policy import CapturePolicy
from vptkit.runtime.streams.frame import Frame

__all__ = ["FakeFeed", "colour_frame"]


def colour_frame(
    source: str, number: int, colour: tuple[int, int, int], *, captured: float = 0.0, **fields: Any
) -> Frame:
    """A frame of one colour, 24 x 16 pixels."""
    pixels = np.full((24, 16, 3), colour, dtype=np.uint8)
    settings = {"wall": 1e9 + captured, "timestamp": None, **fields}
    return Frame(source, number, captured, settings["wall"], settings["timestamp"], pixels)


@dataclass
class FakeFeed:
    """Gives the frames that it holds; ends when they are gone, unless told to stay open."""

    name: str
    frames: list[Frame] = field(default_factory=list)
    live: bool = False
    stays: bool = False
    error: Exception | None = None
    opened: int = 0
    closed: int = 0

    def __post_init__(self) -> None:
        self.source = SimpleNamespace(name=self.name, live=self.live)
        self.policy = CapturePolicy(keep="newest" if self.live else "all", max_staleness=0.5)
        self.counts = Counts(captured=len(self.frames))
        self.changed = threading.Condition()

    @property
    def ready(self) -> bool:
        return bool(self.frames)

    @property
    def ended(self) -> bool:
        return not self.frames and not self.stays

    def open(self) -> None:
        self.opened += 1

    def take(self, now: float) -> Frame | None:
        return self.frames.pop(0) if self.frames else None

    def close(self) -> bool:
        self.closed += 1
        return True
