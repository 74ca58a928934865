"""The exact folds, one pure float64 function each, with its equation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .block_tensors import Linear

if TYPE_CHECKING:
    from vptkit.images.preprocess import Preprocess

    from .block_tensors import Array

__all__ = [
    "fold_layer_norm",
    "fold_layer_scale",
    "fold_pixels",
    "fold_scale",
    "fold_value_bias",
    "normalized",
]


def normalized(x: Array, eps: float, kind: str = "layer") -> Array:
    """x̂ = (x - mean) / sqrt(var + eps) over the last axis; kind "rms" takes no mean off."""
    centred = x - x.mean(axis=-1, keepdims=True) if kind == "layer" else x
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return np.asarray(centred / np.sqrt(variance + eps))


def fold_layer_norm(gamma: Array, beta: Array, linear: Linear) -> Linear:
    """LN(x) W + b = x̂ (diag γ W) + (β W + b)."""
    return Linear(gamma[:, None] * linear.w, beta @ linear.w + linear.b)


def fold_scale(linear: Linear, scale: float) -> Linear:
    """S (x W + b) = x (s W) + s b: the attention scale, into the queries."""
    return Linear(linear.w * scale, linear.b * scale)


def fold_layer_scale(linear: Linear, gamma: Array) -> Linear:
    """(x W + b) diag γ = x (W diag γ) + b diag γ."""
    return Linear(linear.w * gamma, linear.b * gamma)


def fold_value_bias(value_bias: Array, proj: Linear) -> Linear:
    """Attention rows sum to one, so Σ a (v + b_v) W_o = Σ a v W_o + b_v W_o."""
    return Linear(proj.w, proj.b + value_bias @ proj.w)


def fold_pixels(weight: Array, preprocess: Preprocess) -> tuple[Array, Array]:
    """((x / 255 - mean) / std) W = x (W / (255 std)) - Σ (mean / std) W; there is no padding.

    Args:
        weight: the patch embedding's kernel [d, 3, ph, pw].
        preprocess: mean and std.

    Returns:
        w [ph * pw * 3, d] for pixels in the order (row, column, channel), and the shift [d].
    """
    mean, std = np.asarray(preprocess.mean), np.asarray(preprocess.std)
    w = (weight / (255.0 * std)[:, None, None]).transpose(2, 3, 1, 0)  # [ph, pw, 3, d]
    shift = -(weight * (mean / std)[:, None, None]).sum(axis=(1, 2, 3))
    return w.reshape(-1, len(weight)), shift
