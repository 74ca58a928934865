"""One block, folded: its tensors and its prompts in, the constants of a graph out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .block_tensors import Linear, Norm, block_parts
from .equations import fold_layer_norm, fold_layer_scale, fold_scale, fold_value_bias
from .folded_network import Attention, Block, Mlp, Prefix
from .position_encoding import half_layout, relative_bias, rotation
from .prefix_keys_values import (
    learned_keys_values,
    prefix_keys_values,
    prompt_queries,
    prompts_seen,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vptkit.formats.backbone_spec import BackboneSpec

    from .block_tensors import Array, AttentionParts, MlpParts, Tensors
    from .position_encoding import RelativeBias, Rotation

__all__ = ["fold_block"]


def fold_block(
    spec: BackboneSpec,
    tensors: Tensors,
    prompt: Array,
    i: int,
    *,
    learned: tuple[Array, Array] | None = None,
    value_bias: bool = False,
) -> Block:
    """Fold one block.

    Args:
        spec: describes the backbone.
        tensors: its tensors by timm name, as an adapter has them.
        prompt: P [m, d], the prompts that are inserted before this block; [0, d] for none.
        i: which block.
        learned: `Adapter.learned_prefix` of the block.
        value_bias: the values keep their bias, which otherwise goes into the projection.

    Returns:
        Its constants, float64; of the arguments nothing is changed.
    """
    attentions, mlps = block_parts(spec, tensors, i)
    positions = rotation(spec, tensors, i), relative_bias(spec, tensors, i)
    seen = prompts_seen(spec, prompt)
    return Block(
        prompt=prompt,
        prompt_seen=seen,
        attentions=tuple(
            _fold_attention(spec, a, (seen, learned), positions, i, value_bias=value_bias)
            for a in attentions
        ),
        mlps=tuple(_fold_mlp(spec, mlp) for mlp in mlps),
        normed=spec.block != "post",
        parallel=spec.block == "parallel",
    )


def _fold_attention(
    spec: BackboneSpec,
    parts: AttentionParts,
    given: tuple[Array, tuple[Array, Array] | None],
    positions: tuple[Rotation | None, RelativeBias | None],
    i: int,
    *,
    value_bias: bool,
) -> Attention:
    """One attention; `given` are prompts as it sees them, and learned keys and values."""
    post, order = spec.block == "post", None
    q, k, v, proj = parts.q, parts.k, parts.v, parts.proj
    q_norm, k_norm = parts.q_norm, parts.k_norm
    if not post:
        q, k, v = (fold_layer_norm(*parts.norm, linear) for linear in (q, k, v))
    if positions[0] is not None and spec.rotary is not None and not spec.rotary.rotate_half:
        order = half_layout(spec.head_width)
        q, k = _reordered(q, order), _reordered(k, order)
        if q_norm is not None and k_norm is not None:
            q_norm, k_norm = (Norm(n.gamma[order], n.beta[order]) for n in (q_norm, k_norm))
    lost_by_keys, lost_by_values = np.zeros_like(k.b), np.zeros_like(v.b)
    scale = 1.0 / math.sqrt(spec.head_width)
    if q_norm is None:
        q = fold_scale(q, scale)
    else:
        q_norm = Norm(q_norm.gamma * scale, q_norm.beta * scale)
    if k_norm is None and positions[0] is None:
        # A shift that all keys share changes no softmax; behind a norm or a rotation it is not shared.
        k, lost_by_keys = _without_bias(k), k.b
    if parts.out_norm is None and not value_bias:
        proj = fold_value_bias(_spread(v.b, spec.heads, spec.key_heads(i)), proj)
        v, lost_by_values = _without_bias(v), v.b
    elif parts.out_norm is not None:
        proj = fold_layer_norm(*parts.out_norm, proj)
    if parts.scale is not None:
        proj = fold_layer_scale(proj, parts.scale)
    learned = learned_keys_values(given[1], order, (lost_by_keys, lost_by_values))
    pairs = zip(prefix_keys_values(spec, given[0], k, v, k_norm), learned, strict=True)
    keys, values = (np.concatenate(pair) for pair in pairs)
    return Attention(
        q=q,
        k=k.w,
        v=v.w,
        k_bias=k.b if k.b.any() else None,
        v_bias=v.b if v.b.any() else None,
        k_lost=lost_by_keys,
        q_norm=q_norm,
        k_norm=k_norm,
        prefix=Prefix(keys, values, prompt_queries(spec, given[0], q, q_norm)),
        proj=proj,
        out_norm=parts.out_norm is not None,
        post=parts.norm if post else None,
        rotation=positions[0],
        bias=positions[1],
        kv_heads=spec.key_heads(i),
    )


def _fold_mlp(spec: BackboneSpec, parts: MlpParts) -> Mlp:
    post = spec.block == "post"
    fc1, gate, fc2 = parts.fc1, parts.gate, parts.fc2
    if not post:
        fc1 = fold_layer_norm(*parts.norm, fc1)
        gate = None if gate is None else fold_layer_norm(*parts.norm, gate)
    if parts.out_norm is not None:
        fc2 = fold_layer_norm(*parts.out_norm, fc2)
    if parts.scale is not None:
        fc2 = fold_layer_scale(fc2, parts.scale)
    return Mlp(
        fc1=fc1,
        gate=gate,
        out_norm=parts.out_norm is not None,
        fc2=fc2,
        post=parts.norm if post else None,
    )


def _without_bias(linear: Linear) -> Linear:
    return Linear(linear.w, np.zeros_like(linear.b))


def _reordered(linear: Linear, order: NDArray[np.int64]) -> Linear:
    """The channels of every head in another order."""
    columns = np.arange(len(linear.b)).reshape(-1, len(order))[:, order].ravel()
    return Linear(linear.w[:, columns], linear.b[columns])


def _spread(values: Array, heads: int, kv_heads: int) -> Array:
    """[kv] → [d]: each key/value head serves a group of query heads."""
    return np.repeat(values.reshape(kv_heads, -1), heads // kv_heads, axis=0).ravel()
