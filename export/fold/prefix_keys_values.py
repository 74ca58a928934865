"""What the prompts of a block become: keys and values before those of the image.

The rows P [m, d] that deep tuning inserts before a block are overwritten before the next one, so
all that is ever read of them is keys and values. With the block's norm LN(x) = x̂ γ + β, and linears
x W + b,

    K_p = LN(P) W_k + b_k = P̂ (γ W_k) + (β W_k + b_k)
    V_p = LN(P) W_v + b_v = P̂ (γ W_v) + (β W_v + b_v)

are constants [m, kv]. The shift in brackets is added to the keys (values) of the image as well:
where a fold drops or moves it there, the caller drops it here. Prompts have no position: no
rotation, no bias. Keys and values that an adapter has learned as such (`learned_keys_values`) stand
behind those of the prompts. The training forward says the same in torch (tune/backbone/prefix_forward.py),
and tests/integration/test_prefix_equal.py holds both together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .equations import normalized

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vptkit.formats.backbone_spec import BackboneSpec

    from .block_tensors import Array, Linear, Norm

__all__ = ["learned_keys_values", "prefix_keys_values", "prompt_queries", "prompts_seen"]


def prompts_seen(spec: BackboneSpec, prompt: Array, affine: Norm | None = None) -> Array:
    """The prompts as the branches of a block see them, behind the block's norm.

    P̂ = (P - mean P) / sqrt(var P + eps) for each row, P / sqrt(mean P² + eps) where norms are RMS;
    with an affine P̂ γ + β. A post-norm block has no norm before its branches: they see P itself.

    Args:
        spec: kind of the block and of the norm, eps.
        prompt: P [m, d].
        affine: the norm's γ and β, unless they are folded into the linears behind it.

    Returns:
        [m, d]
    """
    if spec.block == "post":
        return prompt
    rows = normalized(prompt, spec.norm_eps, spec.norm)
    return rows if affine is None else np.asarray(rows * affine.gamma + affine.beta)


def prefix_keys_values(
    spec: BackboneSpec, rows: Array, k: Linear, v: Linear, k_norm: Norm | None = None
) -> tuple[Array, Array]:
    """K_p = P̂ (γ W_k), V_p = P̂ (γ W_v); K_p normalised head by head where there is a qk-norm.

    Args:
        spec: width of a head, kind and eps of the qk-norm.
        rows: `prompts_seen` [m, d].
        k, v: the linears of keys and values [d, kv], γ in them; b is zero where the image's keys
            (values) have lost it too.
        k_norm: of each head [e], or None.

    Returns:
        K_p and V_p [m, kv].
    """
    return _by_head(spec, rows @ k.w + k.b, k_norm), np.asarray(rows @ v.w + v.b)


def learned_keys_values(
    learned: tuple[Array, Array] | None, order: NDArray[np.int64] | None, lost: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Learned keys and values as constants beside what the image's became in the folds.

    Where the image's keys lost a shift b, q (k + b) = q k + q b, all lose it: k' = k - b. Where its
    values lost one, Σ p (v + b) = Σ p v + b, so v' = v - b.

    Args:
        learned: [n, kv] each, as the adapter has them, or None.
        order: of the channels [e] in each head of the keys, if the fold has changed it.
        lost: [kv] each: what the image's keys and values no longer have.

    Returns:
        [n, kv] each; n is 0 without.
    """
    if learned is None:
        return tuple(np.zeros((0, len(shift))) for shift in lost)  # type: ignore[return-value]
    keys, values = learned
    if order is not None:
        keys = keys.reshape(len(keys), -1, len(order))[:, :, order].reshape(keys.shape)
    return keys - lost[0], values - lost[1]


def prompt_queries(spec: BackboneSpec, rows: Array, q: Linear, q_norm: Norm | None = None) -> Array:
    """Q_p = P̂ (γ W_q) + (β W_q + b_q) [m, d], where a block's prompt outputs are read.

    A shift of queries is not shared by all keys, so it stays. Arguments as of `prefix_keys_values`.
    """
    return _by_head(spec, rows @ q.w + q.b, q_norm)


def _by_head(spec: BackboneSpec, rows: Array, norm: Norm | None) -> Array:
    """Rows [m, h e], each head of them [e] normalised."""
    if norm is None:
        return np.asarray(rows)
    m, e = len(rows), spec.head_width
    heads = rows.reshape(m, rows.shape[1] // e, e)
    heads = normalized(heads, spec.norm_eps, spec.norm) * norm.gamma + norm.beta
    return np.asarray(heads.reshape(rows.shape))
