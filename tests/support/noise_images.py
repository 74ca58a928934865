"""Images of noise."""

from __future__ import annotations

import numpy as np


def noise(count: int) -> np.ndarray:
    """Of the size of `tiny_spec`; the same for the same count: uint8 [count, 24, 16, 3]."""
    return np.random.default_rng(count).integers(0, 256, (count, 24, 16, 3), dtype=np.uint8)
