"""Cross-validation: the parts of a training set that are held out in turns, stratified by class."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .label_strata import label_strata

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .splits import Split

__all__ = ["NEVER", "cross_validation_parts", "without_part"]

NEVER = -1  # of an image that is in every training: the only one of its class
_MOST, _FEWEST = 5, 2
_STREAM = 4  # apart from the streams of splits, shots and views


def cross_validation_parts(targets: NDArray[Any], seed: int) -> NDArray[np.int64]:
    """Which part each image is in, int64 [images]: k parts, the same share of each class in each.

    k is the number of images of the smallest class, from 2 to 5. The only image of a class is in no
    part, `NEVER`: held out, nothing would be left to learn the class from. If all are such, all are.

    With several labels an image these are 5 parts, or as many as there are images, each with its share of
    each label; a single image is in no part.

    Args:
        targets: class of each image, int64 [images]; or 0 or 1 for each label, [images, C].
        seed: of the draw.
    """
    if targets.ndim == 2:
        k = min(_MOST, len(targets))
        rng = np.random.default_rng([seed, _STREAM])
        return label_strata(targets, [1 / k] * k, rng) if k > 1 else np.full(len(targets), NEVER)
    parts = np.full(len(targets), NEVER)
    counts = np.bincount(targets)
    several = np.flatnonzero(counts > 1)
    if not len(several):
        return parts
    k = int(np.clip(counts[several].min(), _FEWEST, _MOST))
    # Dealt like cards, one class after the other: classes and parts are even to one image.
    dealt = [
        np.random.default_rng([seed, int(label), _STREAM]).permutation(
            np.flatnonzero(targets == label)
        )
        for label in several
    ]
    order = np.concatenate(dealt)
    parts[order] = np.arange(len(order)) % k
    return parts


def without_part(split: Split, parts: NDArray[np.int64], part: int) -> tuple[Split, Split]:
    """What is trained on when a part is held out, and that part.

    Args:
        split: the whole training set.
        parts: of `cross_validation_parts`.
        part: which.
    """
    return _some(split, parts != part), _some(split, parts == part)


def _some(split: Split, chosen: NDArray[np.bool_]) -> Split:
    rows = np.flatnonzero(chosen)
    images = tuple(split.images[i] for i in rows)
    return replace(split, images=images, targets=split.targets[rows])
