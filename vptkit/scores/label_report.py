"""Several labels an image: the figures of a training, as its documents have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .multilabel import average_precisions, f1_scores, mean_average_precision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["label_report", "with_map_names"]

_NAMES = {
    "val_top1": "val_map",
    "test_top1": "test_map",
    "ood_top1": "ood_map",
    "train_top1": "train_label_accuracy",
}


def label_report(
    labels: Sequence[str],
    thresholds: NDArray[np.float32],
    answers: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
) -> dict[str, Any]:
    """The figures of each split, and of each label on val.

    Args:
        labels: C names.
        thresholds: probability from which on a label is given, [C].
        answers: split → (probabilities, truth), both [images, C]: val, perhaps test and ood.

    Returns:
        val, test, ood: {"map", "micro_f1", "macro_f1", "images", "unjudged"} or None; unjudged are the
        labels that no image of it has, which mAP leaves out; map is None if all are. labels: label →
        {"threshold", "average_precision" (None if no image of val has it), "f1", "images" of val}.
    """
    splits = {
        name: _figures(labels, thresholds, *answers[name]) if name in answers else None
        for name in ("val", "test", "ood")
    }
    scores, truth = answers["val"]
    found, f1 = average_precisions(scores, truth), f1_scores(scores >= thresholds, truth).by_label
    by_label = {
        label: {
            "threshold": float(thresholds[i]),
            "average_precision": float(found[i]) if np.isfinite(found[i]) else None,
            "f1": float(f1[i]),
            "images": int(truth[:, i].sum()),
        }
        for i, label in enumerate(labels)
    }
    return {**splits, "labels": by_label}


def with_map_names(document: Any) -> Any:
    """A document in which accuracies are called what they are with several labels: mean average precision."""
    if isinstance(document, dict):
        return {_NAMES.get(key, key): with_map_names(value) for key, value in document.items()}
    return [with_map_names(value) for value in document] if isinstance(document, list) else document


def _figures(
    labels: Sequence[str],
    thresholds: NDArray[np.float32],
    scores: NDArray[Any],
    truth: NDArray[Any],
) -> dict[str, Any] | None:
    if not len(scores):
        return None
    f1 = f1_scores(scores >= thresholds, truth)
    mean = mean_average_precision(scores, truth)
    return {
        "map": mean if np.isfinite(mean) else None,
        "micro_f1": f1.micro,
        "macro_f1": f1.macro,
        "images": len(scores),
        "unjudged": [labels[int(i)] for i in np.flatnonzero(~np.asarray(truth, bool).any(axis=0))],
    }
