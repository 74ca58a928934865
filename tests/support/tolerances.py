"""Every tolerance of the tests, each with its reason, and the one way differences are measured.

A parity test compares with a number of this file; its broken twin must miss it by `CLEARLY`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# The promise of the product. float32 carries 6e-8 an operation; three random blocks with gains above
# one and prompts a hundred times larger than the tokens amplify that: 4e-6 was the most in 300 models.
PARITY_FP32 = 1e-5

# The algebra apart from rounding. float64 carries 1e-16, and 6e-14 was the most in 300 models; room
# is left for the epsilon of LayerNormalization, which ONNX stores as float32 in any graph (relative
# 3e-8 of 1e-6), where a row hardly varies.
PARITY_FP64 = 1e-10

# Twelve trained blocks: activations of some hundreds beside ones of 0.01, sums over 1536 terms, and a
# reference that is float32 itself, so both sides round.
PARITY_REAL_WEIGHTS = 1e-4

# The same bundle on another processor: the same float32 sums in another order. ONNX Runtime 1.23 for
# aarch64 (under QEMU) against 1.32 for x86-64: 6e-7 was the most in six random ViTs, 1.4e-6 in a real
# ViT-Ti/16.
AARCH64 = 1e-5

# One fold against its equation: a few dozen float64 products, no network behind them.
FOLD = 1e-12

# A broken twin is off by at least this many tolerances: not a near miss, and not luck.
CLEARLY = 30.0

# Figures of methods.md are printed in G with two decimals.
PRINTED_G = 0.005e9


def largest_difference(found: ArrayLike, expected: ArrayLike) -> float:
    """Largest absolute difference over the largest expected magnitude; infinite if NaN is found."""
    a, b = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert a.shape == b.shape, f"{a.shape} against {b.shape}"
    if not np.isfinite(a).all():
        return float("inf")
    return float(np.abs(a - b).max() / np.abs(b).max())
