"""How sure a difference is: over cells, by set and backbone; and image by image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

DRAWS = 10_000
Interval = tuple[float, float]


def clustered_interval(values: Sequence[float], clusters: Sequence[Hashable]) -> Interval | None:
    """95 % interval of the mean, whole clusters drawn again and again; None of fewer than two.

    Of few clusters it is too narrow, up to a factor of about two.

    Args:
        values: one a cell.
        clusters: of each; cells of the same images and backbone say much the same.
    """
    names = sorted(set(clusters), key=str)
    if len(names) < 2:
        return None
    of = np.array([names.index(name) for name in clusters])
    sums = np.bincount(of, weights=np.asarray(values, dtype=float))
    drawn = np.random.default_rng(0).integers(len(names), size=(DRAWS, len(names)))
    return _middle(sums[drawn].sum(axis=1) / np.bincount(of)[drawn].sum(axis=1))


def image_interval(gains: NDArray[Any]) -> Interval:
    """95 % interval of a mean difference on one set, seeds and images drawn again and again.

    Args:
        gains: right minus right, [seeds, images].
    """
    rng, (seeds, images) = np.random.default_rng(0), gains.shape
    rows = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=2000) / seeds
    columns = rng.multinomial(images, np.full(images, 1 / images), size=2000) / images
    return _middle(((rows @ gains) * columns).sum(axis=1))


def mcnemar(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> float:
    """Two-sided p of McNemar's exact test: are images that one alone has right as often ours?"""
    won, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    n = won + lost
    tail = sum(math.comb(n, i) for i in range(min(won, lost) + 1))
    return min(1.0, 2 * tail / 2**n)


def covers_zero(interval: Interval) -> bool:
    """Whether nothing can be said of the sign."""
    return interval[0] <= 0 <= interval[1]


def _middle(means: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
