"""How sure the answers shall sound: one temperature for all logits, chosen on val.

A network that fits its training images well says 99 % where 85 % come true. Dividing its logits by
one number T mends most of it, changes no answer (Guo et al., ICML 2017), and costs nothing once it is
in the head's weights. T is fitted to the log-loss on val, with a pull towards 1 that weighs as little
as a few images, because few images, or answers that are all right, say little: there the log-loss
alone would run to T = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .calibration_error import expected_calibration_error
from .multilabel import label_calibration_error, label_derivatives
from .probabilities import log_loss, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Temperature", "best_factor", "fit_temperature"]

_FEWEST = 15  # images; with fewer T stays 1
# Of the pull. 0 to 4 differ by less than 0.01 of log-loss from 50 images on (simulated: 5 classes, 75
# to 97 % right, logits 0.5 to 2.5 times too large); with 15 to 30 images 0 is far worse than no T.
_PULL = 2.0
_LOWEST, _HIGHEST = 0.05, 20.0
_STEPS, _NEAR = 36, 1e-10  # most steps, and the relative step at which they end
_VALUES = 1 << 18  # logits at a time: more would leave the processor's caches


@dataclass(frozen=True, slots=True, kw_only=True)
class Temperature:
    """A temperature, and what it did on val.

    Attributes:
        temperature: T, by which logits are divided.
        val_loss: mean cross-entropy in nats, before and after.
        ece: expected calibration error (15 bins), before and after.
    """

    temperature: float
    val_loss: tuple[float, float]
    ece: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """For the adapter's `train` record and `--json`."""
        return {
            "temperature": self.temperature,
            "val_loss": list(self.val_loss),
            "ece": list(self.ece),
        }


def fit_temperature(logits: NDArray[Any], truth: NDArray[Any]) -> Temperature | None:
    """The T in [0.05, 20] that makes Σ log-loss(logits / T) + 2 (1/T - 1 - log 1/T) smallest.

    Convex in 1/T, so there is one, and it never has more log-loss than T = 1. The second term, which
    is 0 at T = 1, is that of a Gamma distribution of 1/T. With fewer than 15 images T is 1.

    Args:
        logits: [images, C].
        truth: index of each image's class, [images]; or whether it has each label, [images, C].

    Returns:
        None if a logit is NaN or Inf, or there are none.
    """
    if len(logits) == 0 or not np.isfinite(logits).all():
        return None
    factor = best_factor(logits, truth)
    scores = [_score(logits, truth), _score(logits.astype(np.float64) * factor, truth)]
    losses, errors = zip(*scores, strict=True)
    return Temperature(temperature=1 / factor, val_loss=losses, ece=errors)


def best_factor(logits: NDArray[Any], truth: NDArray[Any]) -> float:
    """1/T of `fit_temperature`: what the logits are to be multiplied by; 1 for fewer than 15 images.

    Newton's steps from T = 1; where one leaves the interval that is left, its end is tried, and then
    its middle. About six looks at the logits.

    Args:
        logits: finite, [images, C].
        truth: of `fit_temperature`.
    """
    if len(logits) < _FEWEST:
        return 1.0
    low, high, factor = 1 / _HIGHEST, 1 / _LOWEST, 1.0
    ends = {low, high}  # not looked at yet
    for _ in range(_STEPS):
        slope, curvature = _derivatives(logits, truth, factor)
        slope += _PULL * (1 - 1 / factor)
        curvature += _PULL / factor**2
        if slope > 0:
            high = factor
        else:
            low = factor
        step = -slope / curvature
        if high <= low * (1 + _NEAR) or abs(step) <= _NEAR * factor:
            break
        end = low if step < 0 else high
        if low < factor + step < high:
            factor += step
        elif end in ends:
            ends.remove(end)
            factor = end
        else:
            factor = float(np.sqrt(low * high))
    return factor


def _derivatives(logits: NDArray[Any], truth: NDArray[Any], factor: float) -> tuple[float, float]:
    """First and second of Σ log-loss(factor · logits) by the factor.

    With one label an image these are Σ (mean logit under the softmax - the true one), and Σ variance of
    the logits under the softmax.
    """
    if truth.ndim == 2:
        return label_derivatives(logits, truth, factor)
    first = second = 0.0
    rows = max(1, _VALUES // logits.shape[1])
    for begin in range(0, len(logits), rows):
        part = logits[begin : begin + rows].astype(np.float64)
        part -= np.take_along_axis(part, truth[begin : begin + rows, None], axis=1)
        answers = softmax(factor * part)
        means = np.einsum("ij,ij->i", answers, part)
        first += float(means.sum())
        second += float(np.einsum("ij,ij,ij->", answers, part, part) - means @ means)
    return first, second


def _score(logits: NDArray[Any], truth: NDArray[Any]) -> tuple[float, float]:
    """(log-loss, expected calibration error)."""
    if truth.ndim == 2:
        return log_loss(logits, truth), label_calibration_error(logits, truth)
    probabilities = softmax(logits)
    right = probabilities.argmax(axis=1) == truth
    return log_loss(logits, truth), expected_calibration_error(probabilities.max(axis=1), right)
