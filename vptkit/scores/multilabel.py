"""Several labels an image: losses, average precision, F1, and from which probability a label is given.

Logits and truth are [images, C]; each label has a probability of its own, the logistic function of its
logit. A loss of an image is the mean over its labels, so that it is the same for few labels as for many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .calibration_error import expected_calibration_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "F1",
    "average_precisions",
    "best_thresholds",
    "f1_scores",
    "label_calibration_error",
    "label_derivatives",
    "label_losses",
    "mean_auc_deviation",
    "mean_average_precision",
    "sigmoid",
]

_USUAL = 0.5  # threshold where val says nothing
_EDGE = 1e-6  # thresholds stay so far from 0 and 1


class F1(NamedTuple):
    """2 true positives / (2 true positives + false positives + false negatives).

    Attributes:
        micro: of all decisions together.
        macro: the mean over labels; 0 of a label that no image has and none was given.
        by_label: [C].
    """

    micro: float
    macro: float
    by_label: NDArray[np.float64]


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    """1 / (1 + exp(-logit)), without overflow."""
    values = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1.0, small) / (1.0 + small))


def label_losses(logits: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Binary cross-entropy of each image in nats, the mean over its labels, [images].

    Args:
        logits: [images, C].
        truth: 0 or 1, [images, C].
    """
    values = np.asarray(logits, dtype=np.float64)
    losses = np.logaddexp(0.0, values) - values * truth
    return np.asarray(losses.mean(axis=1))


def average_precisions(scores: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Average precision of each label, [C]; NaN where no image has it.

    Σ (R_k - R_{k-1}) P_k over the distinct scores, from the largest on, as scikit-learn computes it: no
    interpolation, and images of the same score come in together.

    Args:
        scores: logits or probabilities, [images, C].
        truth: whether an image has the label, [images, C].
    """
    columns = zip(np.asarray(scores).T, np.asarray(truth, dtype=bool).T, strict=True)
    return np.array([_average_precision(*column) for column in columns], dtype=np.float64)


def mean_average_precision(scores: NDArray[Any], truth: NDArray[Any]) -> float:
    """MAP: the mean of `average_precisions` over the labels that some image has; NaN without any."""
    known = average_precisions(scores, truth)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else float("nan")


def f1_scores(given: NDArray[np.bool_], truth: NDArray[Any]) -> F1:
    """F1 of decisions.

    Args:
        given: whether an image was given the label, [images, C].
        truth: whether it has it, [images, C].
    """
    has = np.asarray(truth, dtype=bool)
    both = 2.0 * (given & has).sum(axis=0)
    total = given.sum(axis=0) + has.sum(axis=0)
    by_label = np.divide(both, total, out=np.zeros(len(both)), where=total > 0)
    micro = float(both.sum() / total.sum()) if total.sum() else 0.0
    return F1(micro, float(by_label.mean()), by_label)


def best_thresholds(probabilities: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float32]:
    """From which probability on each label is given, so that its F1 is the largest, [C] in (0, 1).

    Tried are 0.5 and the middle between neighbouring probabilities; of equal F1 the one nearest to 0.5.
    A label that no image has keeps 0.5: nothing says where it should be.

    Args:
        probabilities: [images, C].
        truth: whether an image has the label, [images, C].
    """
    columns = zip(np.asarray(probabilities).T, np.asarray(truth, dtype=bool).T, strict=True)
    found = [_best_threshold(*column) for column in columns]
    return np.clip(np.array(found, np.float32), np.float32(_EDGE), np.float32(1 - _EDGE))


def label_derivatives(
    logits: NDArray[Any], truth: NDArray[Any], factor: float
) -> tuple[float, float]:
    """First and second of Σ `label_losses`(factor · logits) by the factor.

    Args:
        logits: finite, [images, C].
        truth: 0 or 1, [images, C].
        factor: 1/T, of `temperature.best_factor`.
    """
    values = np.asarray(logits, dtype=np.float64)
    answers = sigmoid(factor * values)
    first = (values * (answers - truth)).mean(axis=1).sum()
    second = (values**2 * answers * (1 - answers)).mean(axis=1).sum()
    return float(first), float(second)


def label_calibration_error(logits: NDArray[Any], truth: NDArray[Any]) -> float:
    """Expected calibration error of all labels' probabilities together: does what has 30 % come in 30 %?"""
    return expected_calibration_error(sigmoid(logits).ravel(), np.asarray(truth, bool).ravel())


def mean_auc_deviation(scores: NDArray[Any], truth: NDArray[Any]) -> float:
    """By how many standard deviations the labels' mean AUC lies above 1/2.

    Of labels that some images have and some have not (Mann and Whitney's U, labels as if independent);
    0 without such.

    Args:
        scores: finite, [images, C].
        truth: whether an image has the label, [images, C].
    """
    above, variance = 0.0, 0.0
    for column, has in zip(np.asarray(scores).T, np.asarray(truth, dtype=bool).T, strict=True):
        there, not_there = int(has.sum()), int((~has).sum())
        if there and not_there:
            ranks = _middle_ranks(column)
            pairs = there * not_there
            above += (ranks[has].sum() - there * (there + 1) / 2) / pairs - 0.5
            variance += (there + not_there + 1) / (12 * pairs)
    return above / float(np.sqrt(variance)) if variance else 0.0


def _middle_ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share their mean rank."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[group])


def _average_precision(scores: NDArray[Any], has: NDArray[np.bool_]) -> float:
    there = int(has.sum())
    if not there:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(has[order])
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    steps = np.diff(hits[ends], prepend=0) / there
    return float((steps * hits[ends] / (ends + 1)).sum())


def _best_threshold(probabilities: NDArray[Any], has: NDArray[np.bool_]) -> float:
    if not has.any():
        return _USUAL
    values = np.asarray(probabilities, dtype=np.float64)
    distinct = np.unique(values)
    tried = np.append((distinct + np.append(0.0, distinct[:-1])) / 2, _USUAL)
    order = np.sort(values)
    hits = np.sort(values[has])
    given = len(order) - np.searchsorted(order, tried)  # at or above
    right = len(hits) - np.searchsorted(hits, tried)
    scores = 2 * right / (given + len(hits))
    best = tried[scores >= scores.max() - 1e-12]
    return float(best[np.abs(best - _USUAL).argmin()])
