"""Parts of images with several labels each, in which every label has about its share.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML 2011): the label with the fewest images
left is dealt out first, each image to the part that lacks most of that label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["label_strata"]


def label_strata(
    targets: NDArray[Any], shares: Sequence[float], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Which part each image is in, int64 [images].

    Args:
        targets: 0 or 1, [images, C]. Images without a label are dealt out last.
        shares: of the parts; they add up to 1. Of equal needs the earlier part is served.
        rng: of the order of the images.
    """
    parts = np.full(len(targets), -1)
    order = rng.permutation(len(targets))
    has = np.asarray(targets, dtype=bool)[order]
    room = np.asarray(shares, dtype=np.float64) * len(has)  # images that each part still wants
    wanted = np.outer(shares, has.sum(axis=0)).astype(np.float64)  # [parts, C]
    free = np.ones(len(has), dtype=bool)
    while free.any():
        left = has[free].sum(axis=0)
        label = int(np.where(left > 0, left, len(has) + 1).argmin())
        rows = np.flatnonzero(free & has[:, label]) if left[label] else np.flatnonzero(free)
        for row in rows:
            need = wanted[:, label] if left[label] else room
            best = np.flatnonzero(need >= need.max() - 1e-9)
            part = int(best[room[best].argmax()])
            parts[order[row]] = part
            free[row] = False
            wanted[part, has[row]] -= 1
            room[part] -= 1
    return parts
