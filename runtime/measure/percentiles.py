"""Durations of calls, however many, in memory that does not grow with time.

The first `KEPT` rounds are kept as they are, so that a short profile's figures are those of its
samples. Of a longer one two things are kept:

* a histogram of all durations, with bins of the same relative width, as in HDR histograms and
  DDSketch (Masson, Rim, Lee: DDSketch, a fast and fully-mergeable quantile sketch with
  relative-error guarantees, VLDB 2019, arXiv:1908.10693): it holds each quantile to 0.1 %;
* `KEPT` whole rounds, each round with the same chance (Vitter: Random sampling with a reservoir,
  ACM TOMS 11, 1985, algorithm R): what the bootstrap of `timing.compare_medians`
  draws from, since it needs both candidates' times of one round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vptkit.errors import VptkitError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["KEPT", "Histogram", "Rounds", "percentiles_and_mean"]

KEPT = 4096  # rounds

_PERCENTS = (50, 90, 99)
# Bins: one for what is shorter than a nanosecond, the finest that clocks tell; then from there to
# 11 days, each 0.1 % wider than the one before; one for what is longer.
_LEAST, _GREATEST, _WIDTH = 1e-6, 1e9, 1e-3  # ms, ms, and of the logarithm
_BINS = int(np.ceil(np.log(_GREATEST / _LEAST) / _WIDTH)) + 2  # 34541: 270 KiB


def percentiles_and_mean(values: ArrayLike) -> dict[str, float]:
    """{"p50", "p90", "p99", "mean"} of numbers, at least one, exactly."""
    found = np.asarray(values, dtype=np.float64)
    return _summary(np.percentile(found, _PERCENTS), float(found.mean()))


class Histogram:
    """How many durations fell into each of some 34500 bins.

    Quantiles are those of `np.percentile` (linear between two neighbours) to 0.1 % of their value
    from 1e-6 to 1e9 ms. Shorter durations are told to 1e-6 ms; of longer ones only the longest.
    Count, least and greatest are exact, the mean to rounding.

    Attributes:
        count: durations.
        least, greatest: ms; infinite and 0 while there are none.
    """

    def __init__(self) -> None:
        self.count = 0
        self.least, self.greatest = float("inf"), 0.0
        self._total = 0.0
        self._bins = np.zeros(_BINS, dtype=np.int64)

    def add(self, ms: NDArray[np.float64]) -> None:
        """Count durations.

        Args:
            ms: milliseconds, float64 [any number].

        Raises:
            VptkitError: one is negative, NaN or infinite; then none is counted.
        """
        if not len(ms):
            return
        if not ((ms >= 0) & (ms < np.inf)).all():
            raise VptkitError("a duration is negative or not finite: the clock is broken")
        index = np.log(np.maximum(ms, _LEAST) / _LEAST) / _WIDTH
        index = np.where(ms < _LEAST, 0, np.minimum(index + 1, _BINS - 1)).astype(np.int64)
        self._bins += np.bincount(index, minlength=_BINS)
        self._count(len(ms), float(ms.sum()), float(ms.min()), float(ms.max()))

    def merge(self, other: Histogram) -> None:
        """Count what another one has counted."""
        self._bins += other._bins
        self._count(other.count, other._total, other.least, other.greatest)

    def _count(self, count: int, total: float, least: float, greatest: float) -> None:
        self.count += count
        self._total += total
        self.least, self.greatest = min(self.least, least), max(self.greatest, greatest)

    def percentiles(self, percents: Sequence[float]) -> NDArray[np.float64]:
        """Percentiles of at least one duration, ms [as many as percents], to 0.1 %."""
        rank = np.asarray(percents, dtype=np.float64) / 100 * (self.count - 1)
        below = np.floor(rank)
        low, high = self._at(below), self._at(np.ceil(rank))
        return low + (high - low) * (rank - below)

    def _at(self, ranks: NDArray[np.float64]) -> NDArray[np.float64]:
        """The durations of these ranks, from 0, in ascending order."""
        index = np.searchsorted(np.cumsum(self._bins), ranks, side="right")
        # The middle of a bin is 0.05 % from its ends.
        middle = _LEAST * np.exp((index - 0.5) * _WIDTH)
        middle[index == 0], middle[index == _BINS - 1] = 0.0, self.greatest
        middle[ranks == 0], middle[ranks == self.count - 1] = self.least, self.greatest
        found: NDArray[np.float64] = np.clip(middle, self.least, self.greatest)
        return found

    def summary(self) -> dict[str, float]:
        """{"p50", "p90", "p99", "mean"} of at least one duration, ms; the first three to 0.1 %."""
        return _summary(self.percentiles(_PERCENTS), self._total / self.count)


class Rounds:
    """Durations of candidates that were called in rounds.

    Attributes:
        count: rounds.
    """

    def __init__(self, candidates: int, *, kept: int = KEPT, seed: int = 0) -> None:
        """Nothing yet.

        Args:
            candidates: durations of a round.
            kept: rounds that are kept.
            seed: of the choice of these, once there are more.
        """
        self.count = 0
        self._random = np.random.default_rng(seed)
        self._kept = np.empty((kept, candidates))
        self._fresh = np.empty((kept, candidates))  # rounds after those, until there are so many
        self._waiting = 0
        self._histograms: list[Histogram] = []

    def add(self, ms: Sequence[float]) -> None:
        """Take note of a round: milliseconds [candidates]."""
        if self.count < len(self._kept):
            self._kept[self.count] = ms
        else:
            self._fresh[self._waiting] = ms
            self._waiting += 1
        self.count += 1
        if self._waiting == len(self._fresh):
            self._sort_in()

    def kept(self) -> NDArray[np.float64]:
        """All rounds in their order, or a sample of them: float64 [candidates, at most `kept`]."""
        self._sort_in()
        found: NDArray[np.float64] = self._kept[: self.count].T.copy()
        return found

    def histograms(self) -> list[Histogram] | None:
        """All rounds, one histogram for each candidate; None while all of them are kept."""
        self._sort_in()
        return self._histograms or None

    def _sort_in(self) -> None:
        """Count the fresh rounds, and draw which of them take the place of a kept one."""
        if not self._waiting:
            return
        fresh, self._waiting = self._fresh[: self._waiting], 0
        if not self._histograms:
            self._histograms = [Histogram() for _ in fresh.T]
            self._count(self._kept)
        self._count(fresh)
        # Round n, from 1, is kept with a chance of kept/n, in place of any. Of two that take the
        # same place the later one has it, as if they had come one by one.
        place = self._random.integers(np.arange(self.count - len(fresh), self.count) + 1)
        taken = place < len(self._kept)
        for at, ms in zip(place[taken], fresh[taken], strict=True):
            self._kept[at] = ms

    def _count(self, rounds: NDArray[np.float64]) -> None:
        for histogram, ms in zip(self._histograms, rounds.T, strict=True):
            histogram.add(ms)


def _summary(percentiles: NDArray[np.float64], mean: float) -> dict[str, float]:
    p50, p90, p99 = (float(v) for v in percentiles)
    return {"p50": p50, "p90": p90, "p99": p99, "mean": mean}
