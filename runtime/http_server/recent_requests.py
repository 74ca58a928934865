"""What was answered lately: for whoever looks, without a Prometheus."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RecentRequests"]

_SECONDS, _MOST = 60, 20_000  # of which so many are kept at most


class _One(NamedTuple):
    at: float
    seconds: float
    images: int
    failed: bool


class RecentRequests:
    """The requests for answers of the last minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """None yet.

        Args:
            clock: seconds; only differences count.
        """
        self._clock, self._begun = clock, clock()
        self._kept: deque[_One] = deque(maxlen=_MOST)
        self._lock = threading.Lock()

    def add(self, seconds: float, images: int, status: int) -> None:
        """A request was answered, whatever it was told; those without images are left out."""
        if images:
            with self._lock:
                self._kept.append(_One(self._clock(), seconds, images, status >= 400))

    def summary(self) -> dict[str, Any]:
        """{"requests", "failed", "seconds", "images_per_s", "p50_ms", "p99_ms"}; times of those that did not fail."""
        now = self._clock()
        with self._lock:
            while self._kept and now - self._kept[0].at > _SECONDS:
                self._kept.popleft()
            found = list(self._kept)
        good = [1000 * one.seconds for one in found if not one.failed]
        middle, late = np.percentile(good, [50, 99]) if good else (None, None)
        seconds = max(min(now - self._begun, _SECONDS), 1.0)
        return {
            "requests": len(found),
            "failed": sum(one.failed for one in found),
            "seconds": round(seconds),
            "images_per_s": sum(one.images for one in found if not one.failed) / seconds,
            "p50_ms": None if middle is None else float(middle),
            "p99_ms": None if late is None else float(late),
        }
