"""Successive halving by validation log-loss (Jamieson and Talwalkar, AISTATS 2016).

All candidates train for a quarter of their epochs, the better half for half of them, the best one to
its end: twice the epochs of a single run for four candidates. Each trains with its whole schedule
from the start, so that the one that is left is the run that it would have been alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .budget import Budget

__all__ = ["best_by_halving", "best_of_all"]

_RUNGS = (0.25, 0.5)  # shares of the epochs after which half is dropped


def best_by_halving(
    names: Sequence[str], epochs: int, budget: Budget, train: Callable[[str, int], float]
) -> str:
    """The candidate that lasts; it is trained to its end, or until the budget is over.

    Args:
        names: of the candidates.
        epochs: of a whole run.
        budget: asked before each rung of each candidate; `train` stops inside where it is over.
        train: (name, up to which epoch) → its best log-loss on val so far.
    """
    left, losses = list(names), dict.fromkeys(names, math.inf)
    for share in _RUNGS:
        for name in left if len(left) > 1 else ():
            if not budget.over:
                losses[name] = train(name, max(1, math.ceil(share * epochs)))
        left = sorted(left, key=lambda name: losses[name])[: max(1, len(left) // 2)]
    best = min(left, key=lambda name: losses[name])
    if not budget.over:
        train(best, epochs)
    return best


def best_of_all(
    names: Sequence[str], epochs: int, budget: Budget, train: Callable[[str, int], float]
) -> str:
    """The best of candidates that are all trained to their end, as cross-validation does it.

    Args:
        names, epochs, budget, train: of `best_by_halving`.
    """
    losses = dict.fromkeys(names, math.inf)
    for name in names:
        if not budget.over:
            losses[name] = train(name, epochs)
    return min(losses, key=lambda name: losses[name])
