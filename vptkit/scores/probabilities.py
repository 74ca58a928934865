"""Logits as probabilities, and what they cost where they are wrong. All in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

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
        truth: index of each image's class, [images].
    """
    return float(log_losses(logits, truth).mean())


def log_losses(logits: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Cross-entropy of each image in nats, [images]; arguments as of `log_loss`."""
    return np.asarray(-log_softmax(logits)[np.arange(len(truth)), truth])


def top1_and_log_loss(logits: NDArray[Any], truth: NDArray[Any]) -> tuple[float, float]:
    """(share of the images whose largest logit is that of their class, `log_loss`)."""
    return float((logits.argmax(axis=1) == truth).mean()), log_loss(logits, truth)
