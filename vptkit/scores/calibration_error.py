"""The expected calibration error: does what is said with 90 % come true in 90 %?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BINS", "expected_calibration_error"]

BINS = 15  # of equal width, as in Guo et al., ICML 2017


def expected_calibration_error(confidence: NDArray[Any], right: NDArray[np.bool_]) -> float:
    """Mean distance of confidence and accuracy over 15 bins, weighted by their images.

    Σ_b n_b / n · |accuracy_b - mean confidence_b|; bin b holds confidences in ((b - 1) / 15, b / 15]
    (Guo et al., ICML 2017, equation 3). Few images make it large by chance alone.

    Args:
        confidence: probability of each image's answer, [images], in [0, 1].
        right: whether the answer is right, [images].
    """
    bins = np.clip(np.ceil(np.asarray(confidence, np.float64) * BINS).astype(int) - 1, 0, BINS - 1)
    surplus = np.bincount(bins, weights=right - np.asarray(confidence, np.float64), minlength=BINS)
    return float(np.abs(surplus).sum() / len(right))
