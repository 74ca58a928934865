"""Answers over time, one source at a time: calmer probabilities, and the moments of a change."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

    from vptkit.runtime.streams.frame import Frame

__all__ = ["LabelChanges", "Smoothing", "SourceClock"]


@dataclass(slots=True)
class SourceClock:
    """Seconds between the frames of one source, by its own clock where that runs on.

    A stream's timestamps begin anew after it was lost, and some have none: then the time of capture
    counts. A file is read faster than it plays, so its timestamps are what means something.
    """

    _last: Frame | None = None

    def step(self, frame: Frame) -> float:
        """Seconds since the frame before, 0 of the first; never negative."""
        before, self._last = self._last, frame
        if before is None:
            return 0.0
        if frame.timestamp is not None and before.timestamp is not None:
            seconds = frame.timestamp - before.timestamp
            if seconds >= 0:
                return seconds
        return max(frame.captured - before.captured, 0.0)


@dataclass(slots=True)
class Smoothing:
    """An exponential mean of probabilities over time.

    An answer that is `seconds` older weighs 1/e: with a step of dt the mean moves to the new answer
    by 1 - exp(-dt / seconds). So it does not depend on the frame rate, bears gaps (after a long one
    the new answer stands alone), and needs the memory of one answer; a mean over a window needs them
    all, and jumps when an old one leaves it.

    Attributes:
        seconds: the time constant.
    """

    seconds: float
    _mean: NDArray[np.float64] | None = None
    _key: Hashable = None

    def add(
        self, scores: NDArray[np.floating[Any]], step: float, key: Hashable = None
    ) -> NDArray[np.float64]:
        """The mean with this answer.

        Args:
            scores: probabilities [C].
            step: seconds since the answer before.
            key: what the classes are; others begin anew.
        """
        new = scores.astype(np.float64)
        if self._mean is None or key != self._key or self._mean.shape != new.shape:
            self._mean, self._key = new, key
        else:
            old = math.exp(-step / self.seconds)
            self._mean = old * self._mean + (1 - old) * new
        return self._mean


@dataclass(slots=True)
class LabelChanges:
    """Which answers are news: those whose labels differ from those that were told last."""

    _told: Hashable = field(default=None)
    _held: float = 0.0
    _first: bool = True

    def is_news(self, labels: Hashable, step: float) -> tuple[bool, float | None]:
        """Whether to tell, and how long the labels before had been told, s.

        Args:
            labels: of this answer.
            step: seconds since the answer before.
        """
        self._held += step
        if self._first:
            self._first, self._told, self._held = False, labels, 0.0
            return True, None
        if labels == self._told:
            return False, None
        held, self._told, self._held = self._held, labels, 0.0
        return True, held
