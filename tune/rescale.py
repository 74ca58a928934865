"""The factor λ of `methods` 3.2, chosen on validation accuracy: a grid, then golden sections.

The paper chose λ by test accuracy; here the test split is never asked. Between equal accuracies
the λ nearest to 1, that is the one nearest to plain tuning, wins.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GRID", "Trial", "best_trial", "search_factor"]

GRID = (0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)
_SECTIONS = 6  # evaluations between the neighbours of the best grid point
_GOLDEN = (math.sqrt(5) - 1) / 2


class Trial(NamedTuple):
    """One λ that was tried: validation accuracy (a share) and mean cross-entropy."""

    factor: float
    top1: float
    loss: float


def search_factor(score: Callable[[float], tuple[float, float]]) -> list[Trial]:
    """Try the grid, then golden sections between the neighbours of its best point.

    Args:
        score: λ → (validation accuracy, validation loss).

    Returns:
        all trials, in the order of λ; `best_trial` tells which to take.
    """
    trials = {factor: Trial(factor, *score(factor)) for factor in GRID}

    def key(factor: float) -> tuple[float, float]:
        if factor not in trials:
            trials[factor] = Trial(factor, *score(factor))
        return _key(trials[factor])

    middle = GRID.index(best_trial(list(trials.values())).factor)
    low, high = GRID[max(middle - 1, 0)], GRID[min(middle + 1, len(GRID) - 1)]
    left, right = _between(low, high)
    for _ in range(_SECTIONS - 1):
        if key(left) >= key(right):
            high, right = right, left
            left = _between(low, high)[0]
        else:
            low, left = left, right
            right = _between(low, high)[1]
    return sorted(trials.values())


def best_trial(trials: list[Trial]) -> Trial:
    """The most accurate one; of several, the one whose λ is nearest to 1."""
    return max(trials, key=_key)


def _key(trial: Trial) -> tuple[float, float]:
    return trial.top1, -abs(trial.factor - 1)


def _between(low: float, high: float) -> tuple[float, float]:
    """The two inner points of a golden section, short enough to be read in a report."""
    reach = _GOLDEN * (high - low)
    return round(high - reach, 4), round(low + reach, 4)
