"""The factor λ of `methods` 3.2, chosen on validation accuracy: a grid, then golden sections.

The paper chose λ by test accuracy; here the test split is never asked. A λ other than 1 must have
earned it: of the validation images that it and plain tuning (λ = 1) answer differently, it has to
win more than chance would, by more than one standard error (McNemar's: the square root of their
number). The best of fourteen trials is often ahead by an image or two, and that means nothing.
Between equal accuracies the λ nearest to 1 wins.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["GRID", "LambdaPoint", "best_lambda", "search_lambda"]

GRID = (0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)
_SECTIONS = 6  # evaluations between the neighbours of the best grid point
_GOLDEN = (math.sqrt(5) - 1) / 2


class LambdaPoint(NamedTuple):
    """One λ that was tried.

    Attributes:
        factor: λ
        top1: validation accuracy, a share.
        loss: mean cross-entropy there.
        won, lost: images that are right with λ only, and with λ = 1 only.
    """

    factor: float
    top1: float
    loss: float
    won: int = 0
    lost: int = 0


def search_lambda(score: Callable[[float], tuple[NDArray[np.bool_], float]]) -> list[LambdaPoint]:
    """Try the grid, then golden sections between the neighbours of its best point.

    Args:
        score: λ → (which validation images are right, bool [images]; validation loss).

    Returns:
        every λ that was tried, in order; `best_lambda` tells which to take.
    """
    plain, loss = score(1.0)
    points = {1.0: LambdaPoint(1.0, float(plain.mean()), loss)}

    def key(factor: float) -> tuple[float, float]:
        if factor not in points:
            right, loss = score(factor)
            won, lost = int((right & ~plain).sum()), int((plain & ~right).sum())
            points[factor] = LambdaPoint(factor, float(right.mean()), loss, won, lost)
        return _key(points[factor])

    middle = GRID.index(max(GRID, key=key))
    low, high = GRID[max(middle - 1, 0)], GRID[min(middle + 1, len(GRID) - 1)]
    left, right = _between(low, high)
    for _ in range(_SECTIONS - 1):
        if key(left) >= key(right):
            high, right = right, left
            left = _between(low, high)[0]
        else:
            low, left = left, right
            right = _between(low, high)[1]
    return sorted(points.values())


def best_lambda(points: list[LambdaPoint]) -> LambdaPoint:
    """The most accurate one that is ahead of λ = 1 by more than chance, else λ = 1 itself."""
    ahead = [p for p in points if p.won - p.lost > math.sqrt(p.won + p.lost)]
    return max(ahead or [p for p in points if p.factor == 1], key=_key)


def _key(point: LambdaPoint) -> tuple[float, float]:
    return point.top1, -abs(point.factor - 1)


def _between(low: float, high: float) -> tuple[float, float]:
    """The two inner points of a golden section, short enough to be read in a report."""
    reach = _GOLDEN * (high - low)
    return round(high - reach, 4), round(low + reach, 4)
