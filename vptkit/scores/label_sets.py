"""Several labels an image: which ones its scores give, and how far two sets of labels agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .multilabel import f1_scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["decided", "f1_interval", "same_labels"]


def decided(scores: NDArray[Any], thresholds: NDArray[Any]) -> NDArray[np.bool_]:
    """Which labels are given: those whose score is at or above their threshold.

    Both are compared as float32, in which files and graphs have them.

    Args:
        scores: probabilities, [..., C].
        thresholds: [C].
    """
    return np.asarray(np.float32(scores) >= np.float32(thresholds))


def same_labels(expected: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    """How far two decisions agree in the labels that they give: 2 · both / (these + those).

    That is F1 with `expected` as the truth, over all images together. Where each image has one label
    it is the share of images with the same label. Labels that neither gives do not count: of a
    thousand labels nearly all are absent, and agreement on these would hide every mistake.

    Args:
        expected, found: [images, C].

    Returns:
        1 where neither gives any label.
    """
    return f1_scores(found, expected).micro if (expected | found).any() else 1.0


def f1_interval(
    found: NDArray[np.bool_], truth: NDArray[np.bool_], draws: int = 1000
) -> tuple[float, float]:
    """95 % of micro-F1: percentiles over images that are drawn anew, with replacement.

    Images are drawn, not decisions: labels of one image depend on each other. Where all is right the
    interval is empty, as a bootstrap sees nothing else.

    Args:
        found, truth: [images, C], at least one image.
        draws: of all images.
    """
    both = (found & truth).sum(axis=1)
    given = found.sum(axis=1) + truth.sum(axis=1)
    rng, count = np.random.default_rng(0), len(found)
    scores = np.empty(draws)
    for i in range(draws):
        drawn = rng.integers(0, count, count)
        total = given[drawn].sum()
        scores[i] = 2 * both[drawn].sum() / total if total else 0.0
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)
