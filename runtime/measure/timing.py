"""How long calls take, compared fairly: warmed up, interleaved in rounds, with their spread.

Memory does not grow with time (`percentiles`). The clock is an argument, so that tests can turn it by
hand.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vptkit.errors import VptkitError
from vptkit.progress import SILENT

from .percentiles import Rounds, percentiles_and_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from vptkit.progress import Progress

    from .percentiles import Histogram

__all__ = [
    "Budget",
    "Ratio",
    "Timing",
    "compare_medians",
    "measure_latency",
    "random_images",
    "warm_up",
]

# With fewer, not even from the least to the greatest covers a median in 95 of 100 cases.
_FEWEST = 6

Verdict = Literal["faster", "slower", "no measurable difference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long to measure.

    Attributes:
        rounds: calls of each candidate; None lets `seconds` decide.
        seconds: time for all candidates together, warm-up not counted.
        min_rounds: at least so many, even if it takes longer.
        warm_up_least: seconds that the warm-up of a candidate takes at least: clocks need time to
            rise, and a GPU makes hundreds of calls meanwhile.
        warm_up_calls, warm_up_seconds: where the warm-up of a candidate gives up: after so many
            calls beyond the least seconds, or so many seconds in all.
    """

    rounds: int | None = None
    seconds: float = 10.0
    min_rounds: int = 20
    warm_up_least: float = 0.2
    warm_up_calls: int = 50
    warm_up_seconds: float = 10.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            VptkitError: a number is not positive.
        """
        if (self.rounds is not None and self.rounds < 1) or not self.seconds > 0:
            raise VptkitError(
                f"rounds is {self.rounds} and seconds {self.seconds}, expected positive numbers"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The measured calls of one candidate.

    Attributes:
        ms: milliseconds of each call, float64 [rounds], in the order of the rounds; of more than
            `percentiles.KEPT` rounds so many, drawn at random, the same for all candidates.
        warm_up: calls before that were thrown away.
        settled: the running median had settled when the warm-up ended.
        all_ms: of all rounds, where `ms` holds a part of them.
    """

    ms: NDArray[np.float64]
    warm_up: int
    settled: bool
    all_ms: Histogram | None = None

    @property
    def count(self) -> int:
        """Rounds."""
        return len(self.ms) if self.all_ms is None else self.all_ms.count

    def distribution(self) -> list[list[float]]:
        """[percent, milliseconds] from the fastest to the slowest round, in steps of five percent.

        Of more than `percentiles.KEPT` rounds of those that are kept.
        """
        percents = [0, 1, *range(5, 100, 5), 99, 100]
        found = np.percentile(self.ms, percents)
        return [[percent, float(ms)] for percent, ms in zip(percents, found, strict=True)]

    def summary(self) -> dict[str, float]:
        """{"p50", "p90", "p99", "mean"} of all rounds, in milliseconds.

        Exact up to `percentiles.KEPT` rounds; beyond, the percentiles are exact to 0.1 %.
        """
        return percentiles_and_mean(self.ms) if self.all_ms is None else self.all_ms.summary()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A candidate's median over a baseline's, with a 95 % bootstrap interval.

    Attributes:
        value, low, high: the ratio and its interval.
        enough: there were rounds enough for such an interval.
    """

    value: float
    low: float
    high: float
    enough: bool = True

    @property
    def verdict(self) -> Verdict:
        """What may be claimed; too few rounds and an interval that holds 1 allow no claim."""
        if not self.enough or self.low <= 1 <= self.high:
            return "no measurable difference"
        return "faster" if self.high < 1 else "slower"

    def to_json(self) -> dict[str, Any]:
        """As the profile writes it."""
        return {"value": self.value, "low": self.low, "high": self.high, "verdict": self.verdict}


def measure_latency(
    calls: Sequence[Callable[[], object]],
    *,
    budget: Budget | None = None,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
    progress: Progress = SILENT,
) -> list[Timing]:
    """Time candidates side by side.

    Each round calls every candidate once, in an order drawn anew, so that what the machine does
    meanwhile (other jobs, heat, clocks) meets all of them alike.

    Args:
        calls: the candidates.
        budget: how long to measure.
        seed: of the order, and of the choice of rounds that are kept.
        clock: seconds; only differences count.
        progress: told about each round.

    Returns:
        One timing for each candidate; entry r of all of them comes from the same round.
    """
    budget = budget or Budget()
    warm = [warm_up(call, budget=budget, clock=clock) for call in calls]
    random = np.random.default_rng(seed)
    rounds = Rounds(len(calls), seed=seed)
    start = clock()
    while not _enough(budget, rounds.count, clock() - start):
        ms = [0.0] * len(calls)
        for i in random.permutation(len(calls)):
            ms[i] = _time(calls[i], clock)
        rounds.add(ms)
        progress.update()
    all_ms: Sequence[Histogram | None] = rounds.histograms() or [None] * len(calls)
    return [
        Timing(ms=ms, warm_up=count, settled=settled, all_ms=whole)
        for ms, whole, (count, settled) in zip(rounds.kept(), all_ms, warm, strict=True)
    ]


def warm_up(
    call: Callable[[], object],
    *,
    budget: Budget,
    clock: Callable[[], float],
    window: int = 5,
    tolerance: float = 0.05,
) -> tuple[int, bool]:
    """Call until the median of `window` calls is within `tolerance` of that of the window before.

    Returns:
        (calls made, whether it settled); it gives up at the budget's bounds.
    """
    ms: list[float] = []
    late = 0  # calls after the least time
    start = clock()
    # The second bound is for a clock that stands still.
    while late < max(budget.warm_up_calls, 2 * window) and len(ms) < 100 * budget.warm_up_calls:
        ms.append(_time(call, clock))
        spent = clock() - start
        late += spent >= budget.warm_up_least
        if len(ms) >= 2 * window and late:
            before, now = np.median(ms[-2 * window : -window]), np.median(ms[-window:])
            if abs(now - before) <= tolerance * before:
                return len(ms), True
        if spent >= budget.warm_up_seconds:
            break
    return len(ms), False


def compare_medians(
    timing: Timing, baseline: Timing, *, seed: int = 0, resamples: int = 2000
) -> Ratio:
    """The ratio of the medians, and how sure it is.

    The bootstrap draws rounds, and takes both candidates' times of a drawn round: what disturbed a
    round disturbed both. Of more rounds than are kept, ratio and interval are of those that are:
    a fair sample, so the interval is as wide as so many rounds make it, and holds.
    """
    random = np.random.default_rng(seed)
    ours, theirs = timing.ms, baseline.ms
    drawn = np.empty(resamples)
    for k in range(resamples):
        rounds = random.integers(len(ours), size=len(ours))
        drawn[k] = np.median(ours[rounds]) / np.median(theirs[rounds])
    low, high = (float(v) for v in np.percentile(drawn, [2.5, 97.5]))
    return Ratio(
        value=float(np.median(ours) / np.median(theirs)),
        low=low,
        high=high,
        enough=len(ours) >= _FEWEST,
    )


def random_images(count: int, size: tuple[int, int], *, seed: int = 0) -> NDArray[np.uint8]:
    """Noise, uint8 [count, H, W, 3]; the same for the same seed.

    Constant images would let a backend take paths that real ones never do.
    """
    random = np.random.default_rng(seed)
    return random.integers(0, 256, size=(count, *size, 3), dtype=np.uint8)


def _enough(budget: Budget, rounds: int, seconds: float) -> bool:
    if budget.rounds is not None:
        return rounds >= budget.rounds
    return rounds >= budget.min_rounds and seconds >= budget.seconds


def _time(call: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return (clock() - start) * 1000
