"""The expected calibration error: does what is said with 90 % come true in 90 %?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BINS", "CalibrationBin", "calibration_bins", "expected_calibration_error"]

BINS = 15  # of equal width, as in Guo et al., ICML 2017


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Answers of about the same confidence.

    Attributes:
        count: images.
        right: how many of them have the right answer.
        confidence: mean probability of their answers; 0 without images.
    """

    count: int
    right: int
    confidence: float


def calibration_bins(
    confidence: NDArray[Any], right: NDArray[np.bool_]
) -> tuple[CalibrationBin, ...]:
    """The bins of `expected_calibration_error`, from the least confidence up.

    Args:
        confidence: probability of each image's answer, [images], in [0, 1].
        right: whether the answer is right, [images].
    """
    said = np.asarray(confidence, np.float64)
    bins = _bins(said)
    counts = np.bincount(bins, minlength=BINS)
    hits = np.bincount(bins, weights=right, minlength=BINS)
    means = np.bincount(bins, weights=said, minlength=BINS) / np.maximum(counts, 1)
    return tuple(
        CalibrationBin(int(n), int(k), float(mean))
        for n, k, mean in zip(counts, hits, means, strict=True)
    )


def expected_calibration_error(confidence: NDArray[Any], right: NDArray[np.bool_]) -> float:
    """Mean distance of confidence and accuracy over 15 bins, weighted by their images.

    Σ_b n_b / n · |accuracy_b - mean confidence_b|; bin b holds confidences in ((b - 1) / 15, b / 15]
    (Guo et al., ICML 2017, equation 3). Few images make it large by chance alone.

    Args:
        confidence: probability of each image's answer, [images], in [0, 1].
        right: whether the answer is right, [images].
    """
    said = np.asarray(confidence, np.float64)
    surplus = np.bincount(_bins(said), weights=right - said, minlength=BINS)
    return float(np.abs(surplus).sum() / len(right))


def _bins(said: NDArray[np.float64]) -> NDArray[np.intp]:
    """The bin of each, from 0."""
    return np.clip(np.ceil(said * BINS).astype(np.intp) - 1, 0, BINS - 1)
