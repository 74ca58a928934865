"""Which frames of a source are kept, and how long to wait before a lost one is opened again."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Literal

from vptkit.errors import VptkitError

__all__ = ["BackOff", "CapturePolicy", "Sieve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturePolicy:
    """Which frames are kept.

    Attributes:
        keep: "newest" has one place, and a newer frame takes it; "all" waits until there is room.
        max_staleness: a frame older than this is not handed out where the newest is kept, s.
        every: of the frames each N-th, beginning with the first.
        fps: at most so many a second, by the source's clock where it is a file.
        queue: places for frames where all are kept.
    """

    keep: Literal["newest", "all"] = "newest"
    max_staleness: float = 0.5
    every: int = 1
    fps: float | None = None
    queue: int = 8

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        if self.every < 1 or self.queue < 1:
            raise VptkitError(f"every {self.every}, queue {self.queue}: expected 1 or more")
        if not self.max_staleness > 0:
            raise VptkitError(f"a staleness of {self.max_staleness} s: expected more than 0")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise VptkitError(f"{self.fps} frames a second: expected more than 0")


@dataclass(slots=True)
class Sieve:
    """The frames that `every` and `fps` leave."""

    policy: CapturePolicy
    _count: int = 0
    _due: float | None = field(default=None)

    def cause_to_drop(self, seconds: float) -> str | None:
        """Why a frame of this time is dropped, "every" or "rate"; None keeps it."""
        self._count += 1
        if (self._count - 1) % self.policy.every:
            return "every"
        if self.policy.fps is None:
            return None
        period = 1 / self.policy.fps
        if self._due is None or abs(seconds - self._due) > 10 * period + 1:  # a new clock, or a gap
            self._due = seconds
        if seconds < self._due - period * 1e-3:  # times are rounded: 1/30 s to milliseconds
            return "rate"
        self._due = max(self._due + period, seconds)
        return None


@dataclass(slots=True)
class BackOff:
    """Pauses that double: 0.5 s at first, at most 30 s, and a good frame begins anew.

    Up to a quarter is added at random, so that many cameras do not come back in one moment.
    """

    first: float = 0.5
    most: float = 30.0
    chance: random.Random = field(default_factory=random.Random)
    tries: int = 0

    def pause(self) -> float:
        """Seconds to wait before the next try."""
        base = self.first * float(1 << min(self.tries, 32))
        self.tries += 1
        return min(self.most, base * (1 + self.chance.random() / 4))

    def reset(self) -> None:
        """A frame came."""
        self.tries = 0
