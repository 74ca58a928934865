"""How far feature vectors are from those that they should be."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FeatureDistance", "feature_distance", "unit_length"]

_SHORTEST = 1e-12  # of a vector whose direction counts


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureDistance:
    """Features beside the expected ones; figures are None if a number is NaN or Inf.

    Attributes:
        count: images.
        max_abs_diff: the largest absolute difference.
        max_rel_diff: that over the largest absolute expected number.
        cosine: mean over the images of the cosine between found and expected.
        min_cosine: the smallest of them.
    """

    count: int
    max_abs_diff: float | None
    max_rel_diff: float | None
    cosine: float | None
    min_cosine: float | None

    def to_json(self) -> dict[str, Any]:
        """As manifests and `check --json` write it."""
        return asdict(self)

    def text(self) -> str:
        """As "features: cosine 0.99996 on average, 0.99989 at least"."""
        if self.cosine is None or self.min_cosine is None:
            return "features: NaN or Inf"
        return f"features: cosine {self.cosine:.5f} on average, {self.min_cosine:.5f} at least"


def feature_distance(expected: NDArray[Any], found: NDArray[Any]) -> FeatureDistance:
    """Compare features [N, f], N at least 1; the expected ones are finite."""
    expected, found = expected.astype(np.float64), found.astype(np.float64)
    if not np.isfinite(found).all():
        return FeatureDistance(
            count=len(found), max_abs_diff=None, max_rel_diff=None, cosine=None, min_cosine=None
        )
    largest, scale = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    products = (found * expected).sum(axis=1)
    same = np.abs(found - expected).max(axis=1) == 0  # of vectors without a direction, too
    cosines = np.where(same, 1.0, products / np.maximum(lengths, _SHORTEST))
    none = 0.0 if largest == 0 else float(np.finfo(np.float64).max)
    return FeatureDistance(
        count=len(found),
        max_abs_diff=largest,
        max_rel_diff=largest / scale if scale else none,
        cosine=float(cosines.mean()),
        min_cosine=float(cosines.min()),
    )


def unit_length(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide by max(|f|, 1e-12), as graphs with normalised features do: [N, f]."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, _SHORTEST), dtype=np.float32)
