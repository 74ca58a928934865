"""Is an image like those that were learned from? Distances between features, and what they mean.

The distance is Mahalanobis' to the nearest class mean, with one covariance for all classes (Lee et
al., NeurIPS 2018), shrunk towards a multiple of the unit matrix (Ledoit and Wolf, J. Multivariate
Analysis 2004), so that few images are enough. How far is far is read off images that the means have
not seen: the share of them that is at least as far (a conformal p-value; Vovk et al., 2005).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Typicality", "fit_typicality", "held_out_rates", "typicality_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Typicality:
    """Class means and a whitening of features, and distances of images that made neither.

    Attributes:
        means: [C, f].
        whitening: W [f, f]; the distance of x to a mean m is |(x - m) W|.
        known: distances of other images of the classes, ascending [n].
    """

    means: NDArray[np.float32]
    whitening: NDArray[np.float32]
    known: NDArray[np.float64]

    def distances(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Of features [B, f] to the nearest mean: [B]."""
        whitening = self.whitening.astype(np.float64)
        rows = np.asarray(features, dtype=np.float64) @ whitening
        means = self.means.astype(np.float64) @ whitening
        squares = (rows**2).sum(axis=1)[:, None] - 2 * rows @ means.T + (means**2).sum(axis=1)
        return np.asarray(np.sqrt(np.maximum(squares.min(axis=1), 0.0)))

    def shares(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """How much of what is known is at least as far as features [B, f] are: (0, 1] each.

        Of images like the known ones no more than a share t has a value up to t.
        """
        nearer = np.searchsorted(self.known, self.distances(features), side="left")
        return np.asarray((1 + len(self.known) - nearer) / (1 + len(self.known)))

    @property
    def least_rate(self) -> float:
        """The smallest share that these known images can tell."""
        return 1 / (1 + len(self.known))


def fit_typicality(
    features: NDArray[Any], classes: NDArray[np.intp], known: NDArray[Any]
) -> Typicality | None:
    """Means and covariance of training features, and the distances of others.

    Args:
        features: [N, f], of training images.
        classes: number of each one's class [N].
        known: features of other images of these classes [n, f].

    Returns:
        None where no class has two different images, so that nothing is known of its spread.
    """
    features = np.asarray(features, dtype=np.float64)
    _, rows = np.unique(classes, return_inverse=True)
    counts = np.bincount(rows)
    means = np.zeros((len(counts), features.shape[1]))
    np.add.at(means, rows, features)
    means /= counts[:, None]
    covariance = _shrunk(features - means[rows])
    if covariance is None:
        return None
    factor = np.linalg.cholesky(covariance)
    whitening = np.linalg.inv(factor).T
    made = Typicality(
        means=means.astype(np.float32), whitening=whitening.astype(np.float32), known=np.empty(0)
    )
    return Typicality(
        means=made.means, whitening=made.whitening, known=np.sort(made.distances(known))
    )


def typicality_of(tensors: Mapping[str, NDArray[Any]], size: int) -> Typicality | None:
    """What a stranger's file says: means, whitening and known; None if these do not fit.

    Args:
        tensors: by name.
        size: f.
    """
    kinds = {name: (value.dtype.kind, value.ndim) for name, value in tensors.items()}
    if kinds != {"means": ("f", 2), "whitening": ("f", 2), "known": ("f", 1)}:
        return None
    means, whitening, known = (tensors[name] for name in ("means", "whitening", "known"))
    if not len(means) or means.shape[1] != size or whitening.shape != (size, size):
        return None
    if not all(np.isfinite(value).all() for value in tensors.values()):
        return None
    return Typicality(means=means, whitening=whitening, known=np.sort(known))


def held_out_rates(
    features: NDArray[Any],
    classes: NDArray[np.intp],
    known: NDArray[Any],
    known_classes: NDArray[np.intp],
    rate: float,
) -> list[float]:
    """Of each class that is left out in its turn, the share of its known images that is accepted.

    Args:
        features, classes, known: as of `fit_typicality`.
        known_classes: number of the class of each known image [n].
        rate: what is rejected of the known images of the other classes, at most.

    Returns:
        The false accept rates; none for classes without known images, or without others.
    """
    rates = []
    for left_out in np.unique(known_classes):
        others, own = classes != left_out, known_classes == left_out
        if not others.any() or own.all():
            continue
        fitted = fit_typicality(features[others], classes[others], known[~own])
        if fitted is not None:
            rates.append(float((fitted.shares(known[own]) > rate).mean()))
    return rates


def _shrunk(centred: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Ledoit and Wolf's covariance of rows of mean zero [N, f]; None if all of them are zero."""
    count, size = centred.shape
    sample = centred.T @ centred / count
    scale = float(np.trace(sample)) / size
    if not scale > 0:
        return None
    unit = scale * np.eye(size)
    apart = float(((sample - unit) ** 2).sum()) / size
    fourth = float(((centred**2).sum(axis=1) ** 2).sum()) / count
    noise = (fourth - float((sample**2).sum())) / (count * size)
    weight = 1.0 if apart == 0 else min(max(noise / apart, 1e-6), 1.0)
    return np.asarray((1 - weight) * sample + weight * unit)
