"""Logits as probabilities, and what they cost where they are wrong. All in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .multilabel import label_losses, mean_average_precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["log_loss", "log_losses", "log_softmax", "softmax", "top1_and_log_loss"]


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities along the last axis."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Logarithms of the probabilities along the last axis; finite, however small these are."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def log_loss(logits: NDArray[Any], truth: NDArray[Any]) -> float:
    """Mean cross-entropy in nats.

    Args:
        logits: [images, C].
        truth: index of each image's class, [images]; or whether it has each label, [images, C], for the
            binary cross-entropy of `multilabel.label_losses`.
    """
    return float(log_losses(logits, truth).mean())


def log_losses(logits: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Cross-entropy of each image in nats, [images]; arguments as of `log_loss`."""
    if truth.ndim == 2:
        return label_losses(logits, truth)
    return np.asarray(-log_softmax(logits)[np.arange(len(truth)), truth])


def top1_and_log_loss(logits: NDArray[Any], truth: NDArray[Any]) -> tuple[float, float]:
    """(share of the images whose largest logit is that of their class, `log_loss`).

    With several labels an image the mean average precision stands in place of the share.
    """
    if truth.ndim == 2:
        return mean_average_precision(logits, truth), log_loss(logits, truth)
    return float((logits.argmax(axis=1) == truth).mean()), log_loss(logits, truth)
