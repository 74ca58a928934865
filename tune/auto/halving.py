"""Successive halving by validation log-loss (Jamieson and Talwalkar, AISTATS 2016).

Of two candidates both train for half of their epochs, and one to its end: one and a half times the
epochs of a single run. Four begin with a quarter each: twice. Each trains with its whole schedule
from the start, so that the one that is left is the run that it would have been alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .budget import Budget

__all__ = ["best_by_halving", "best_of_all"]


def best_by_halving(
    names: Sequence[str],
    epochs: int,
    budget: Budget,
    train: Callable[[str, int], float],
    choose: Callable[[Sequence[str]], str],
) -> str:
    """The candidate that lasts; it is trained to its end, or until the budget is over.

    Args:
        names: of the candidates.
        epochs: of a whole run.
        budget: asked before each rung of each candidate; `train` stops inside where it is over.
        train: (name, up to which epoch) → its best log-loss on val so far.
        choose: of some that were trained → the one to keep.
    """
    left = list(names)
    for rung in reversed(range(math.ceil(math.log2(len(left))))):  # half of the epochs at the last
        share, losses = 0.5 ** (rung + 1), {}
        for name in left:
            if not budget.over:
                losses[name] = train(name, max(1, math.ceil(share * epochs)))
        ahead = sorted(losses, key=losses.__getitem__) or left[:1]
        kept = ahead[: 2**rung]
        left = kept if rung or len(losses) < 2 else [choose(list(losses))]
    if not budget.over:
        train(left[0], epochs)
    return left[0]


def best_of_all(
    names: Sequence[str],
    epochs: int,
    budget: Budget,
    train: Callable[[str, int], float],
    choose: Callable[[Sequence[str]], str],
) -> str:
    """The best of candidates that are all trained to their end, as cross-validation does it.

    Args:
        names, epochs, budget, train, choose: of `best_by_halving`.
    """
    done = []
    for name in names:
        if not budget.over:
            train(name, epochs)
            done.append(name)
    return choose(done) if done else names[0]
