"""Changes of weights that are known whole, as low-rank factors where they are of low rank.

What PEFT has merged by itself is a difference of two weights. Of many kinds it has a low rank (VeRA,
AdaLoRA, small LoHa), and as factors a bank can look it up. A difference of float32 numbers has their
rounding in it, which is of full rank: what is smaller than that is no part of the change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vptkit.formats.weight_deltas import LowRank

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["low_rank_form"]

MOST_RANK = 64
_SHARE = 1e-6  # of the largest change, by which its factors may differ from it
_ULP = float(np.finfo(np.float32).eps)
_MORE = 8  # columns of the sketch beyond the rank that is looked for


def low_rank_form(delta: Array, largest_weight: float) -> LowRank | None:
    """Factors of a change, float32, or None where it has no low rank.

    Multiplied, they are within 1e-6 of its largest number, or within one float32 rounding of the
    weights; and they are fewer numbers than the change itself.

    Args:
        delta: [out, in]
        largest_weight: largest magnitude among the weights that it is the difference of.
    """
    largest = float(np.abs(delta).max(initial=0.0))
    most = min(MOST_RANK, delta.size // sum(delta.shape))
    if not np.isfinite(largest) or not largest or most < 1:
        return None
    allowed = max(_SHARE * largest, _ULP * largest_weight)
    u, s, vt = _leading(delta, most)

    def factors(rank: int) -> LowRank:
        root = np.sqrt(s[:rank])
        pair = root[:, None] * vt[:rank], u[:, :rank] * root
        return LowRank(*(np.ascontiguousarray(part, dtype=np.float32) for part in pair))

    def fits(rank: int) -> bool:
        a, b = (part.astype(np.float64) for part in factors(rank))
        return bool(np.abs(b @ a - delta).max() <= allowed)

    low, high = 1, min(most, len(s))
    if not fits(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return factors(high)


def _leading(delta: Array, rank: int) -> tuple[Array, Array, Array]:
    """Singular vectors and values, at least `rank` of the largest: U [out, k], s [k], Vᵀ [k, in].

    By a random sketch with one power iteration where the matrix is much larger (Halko et al. 2011).
    """
    size = rank + _MORE
    if min(delta.shape) <= 2 * size:
        return np.linalg.svd(delta, full_matrices=False)
    sketch = delta @ np.random.default_rng(0).standard_normal((delta.shape[1], size))
    basis = np.linalg.qr(delta @ (delta.T @ np.linalg.qr(sketch)[0]))[0]
    u, s, vt = np.linalg.svd(basis.T @ delta, full_matrices=False)
    return basis @ u, s, vt
