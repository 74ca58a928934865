"""How heavy the tails of many numbers are, told from a stream of them.

A `Tally` keeps power sums and one histogram of log2|x|: fine enough (0.5 % a bin) that quantiles,
pictures and fits are read off it, so that the numbers themselves need not be kept. Fits are by
maximum likelihood, centred at zero as the whitening is: a Gaussian, a Laplacian, and the
generalised Gaussian p(x) ∝ exp(-(|x|/a)^e), which is called hyper-Laplacian where e < 1.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Fit", "Tails", "Tally"]

_LOWEST, _OCTAVES, _PER_OCTAVE = -40, 72, 128
_BINS = _OCTAVES * _PER_OCTAVE
_EXPONENTS = 0.05, 8.0  # where the fitted exponent is sought


@dataclass(frozen=True, slots=True)
class Fit:
    """A generalised Gaussian: density e / (2 a Γ(1/e)) · exp(-(|x|/a)^e).

    Attributes:
        exponent: e; 1 is a Laplacian, 2 a Gaussian.
        scale: a.
        log_likelihood: mean of log p over the numbers, in nats.
    """

    exponent: float
    scale: float
    log_likelihood: float

    def density(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Its value at some places; same shape."""
        height = self.exponent / (2 * self.scale * math.gamma(1 / self.exponent))
        return np.asarray(height * np.exp(-((np.abs(x) / self.scale) ** self.exponent)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tails:
    """What is worth knowing about a distribution; nan-free, ready for JSON.

    Attributes:
        count: how many numbers.
        mean, rms, max_abs: mean, root of the mean square (about zero), largest magnitude.
        excess_kurtosis: fourth central moment over the square of the second, minus 3; a Gaussian
            has 0, a Laplacian 3.
        max_over_rms: 4 to 6 for a Gaussian of thousands to millions of numbers.
        beyond_6_rms: share of |x| > 6 rms; 2e-9 for a Gaussian, 2e-4 for a Laplacian.
        gaussian, laplacian, generalised: the fits.
    """

    count: int
    mean: float
    rms: float
    max_abs: float
    excess_kurtosis: float
    max_over_rms: float
    beyond_6_rms: float
    gaussian: Fit
    laplacian: Fit
    generalised: Fit

    def to_json(self) -> dict[str, Any]:
        """As a part of the document of `vptkit analyze`."""
        return asdict(self)


class Tally:
    """Counts numbers as they come; memory does not grow."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self.count = 0
        self._powers = np.zeros(4)
        self._max = 0.0
        self._bins = np.zeros((2, _BINS))  # [negative or not, bin of log2|x|]

    def add(self, values: Tensor) -> None:
        """Count some more numbers, of any shape; computed in float64."""
        x = values.detach().double().flatten()
        self.count += len(x)
        square = x * x
        sums = (x.sum(), square.sum(), (square * x).sum(), (square * square).sum())
        self._powers += [float(s) for s in sums]
        self._max = max(self._max, float(x.abs().max()))
        place = (x.abs().log2() - _LOWEST).mul_(_PER_OCTAVE).clamp_(0, _BINS - 1).long()
        for sign, chosen in enumerate((x < 0, x >= 0)):
            self._bins[sign] += torch.bincount(place[chosen], minlength=_BINS).numpy()

    def excess_kurtosis(self) -> float:
        """Of `Tails`; alone it costs nothing."""
        mean, second, third, fourth = (self._powers / max(self.count, 1)).tolist()
        variance = second - mean**2
        central = fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4
        # equal numbers: what is left of their variance is rounding
        return central / variance**2 - 3 if variance > 1e-12 * second else 0.0

    def tails(self) -> Tails:
        """Statistics and fits of everything seen.

        All zeros, or nothing at all, give a distribution of width 0.
        """
        mean, second = (self._powers[:2] / max(self.count, 1)).tolist()
        rms = math.sqrt(second)
        return Tails(
            count=self.count,
            mean=mean,
            rms=rms,
            max_abs=self._max,
            excess_kurtosis=self.excess_kurtosis(),
            max_over_rms=self._max / rms if rms else 0.0,
            beyond_6_rms=self._beyond(6 * rms) if rms else 0.0,
            gaussian=self._fit(2.0),
            laplacian=self._fit(1.0),
            generalised=self._fit(_best(lambda e: self._fit(e).log_likelihood)),
        )

    def histogram(self, edges: NDArray[np.float64]) -> NDArray[np.float64]:
        """How many numbers lie between edges, interpolated within bins: [len(edges) - 1].

        Args:
            edges: ascending.
        """
        below = np.concatenate([[0.0], np.cumsum(self._bins[0][::-1])])
        above = below[-1] + np.concatenate([[0.0], np.cumsum(self._bins[1])])
        places = np.concatenate([-_edges()[::-1], _edges()])
        return np.diff(np.interp(edges, places, np.concatenate([below, above])))

    def _beyond(self, bound: float) -> float:
        counted = np.concatenate([[0.0], np.cumsum(self._bins.sum(axis=0))])
        if bound >= self._max:  # the last bin reaches beyond the largest number
            return 0.0
        return float(1 - np.interp(bound, _edges(), counted) / counted[-1])

    def _fit(self, exponent: float) -> Fit:
        """The most likely scale of an exponent: a^e = e · mean |x|^e."""
        weights = self._bins.sum(axis=0)
        used = weights > 0
        centres = np.sqrt(_edges()[1:] * _edges()[:-1])[used]
        largest = float(centres[-1]) if used.any() else 0.0
        if largest == 0 or self._max == 0:
            return Fit(exponent, 0.0, 0.0)
        # divided by the largest: powers of large numbers overflow
        moment = float((weights[used] * (centres / largest) ** exponent).sum() / weights.sum())
        scale = largest * (exponent * moment) ** (1 / exponent)
        height = math.log(exponent / (2 * scale)) - math.lgamma(1 / exponent)
        return Fit(exponent, scale, height - 1 / exponent)


def _edges() -> NDArray[np.float64]:
    return np.asarray(2.0 ** (_LOWEST + np.arange(_BINS + 1) / _PER_OCTAVE))


def _best(score: Callable[[float], float], steps: int = 40) -> float:
    """The exponent of the highest score, by golden section on its logarithm."""
    shrink = (math.sqrt(5) - 1) / 2
    low, high = (math.log(e) for e in _EXPONENTS)
    left, right = high - shrink * (high - low), low + shrink * (high - low)
    at_left, at_right = score(math.exp(left)), score(math.exp(right))
    for _ in range(steps):
        if at_left > at_right:
            high, right, at_right = right, left, at_left
            left = high - shrink * (high - low)
            at_left = score(math.exp(left))
        else:
            low, left, at_left = left, right, at_right
            right = low + shrink * (high - low)
            at_right = score(math.exp(right))
    return math.exp((low + high) / 2)
