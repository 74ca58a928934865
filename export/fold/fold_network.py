"""The exact folds: backbone + adapter → fewer, larger constants.

Everything here is float64 numpy and a pure function of its arguments. Linears act on the right,
y = x W + b with W [in, out] (the transpose of torch's layout). x̂ is a normalised row,
x̂ = (x - mean x) / sqrt(var x + eps), or x / sqrt(mean x² + eps) where the backbone's norms are RMS.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import AdapterError

from .block_tensors import Linear, Norm, Tensors, block_parts
from .position_encoding import RelativeBias, Rotation, half_layout, relative_bias, rotation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vptkit.formats.adapter import Adapter
    from vptkit.formats.backbone_spec import BackboneSpec

    from .block_tensors import Array, AttentionParts, MlpParts
from .equations import (
    fold_layer_norm,
    fold_layer_scale,
    fold_pixels,
    fold_scale,
    fold_value_bias,
    normalized,
)
from .folded_network import Attention, Block, Folded, Mlp, Pool, _Blocks

__all__ = ["fold"]


def fold(spec: BackboneSpec, weights: Mapping[str, NDArray[Any]], adapter: Adapter) -> Folded:
    """Fold a backbone and an adapter into one network.

    Args:
        spec: describes the backbone.
        weights: its tensors by timm name.
        adapter: prompts, tuned LayerNorm parameters (which replace the backbone's) and head.

    Returns:
        The folded network, float64.

    Raises:
        AdapterError: the adapter pools as the backbone cannot.
    """
    tensors = Tensors({**weights, **adapter.layer_norms()})

    def prompt(i: int) -> Array | None:
        if adapter.insert == "deep" or (adapter.insert == "shallow" and i == 0):
            return adapter.prompts(i)
        return None

    head = Linear(
        np.asarray(adapter.tensors["head.weight"], dtype=np.float64).T,
        np.asarray(adapter.tensors["head.bias"], dtype=np.float64),
    )
    final = None if spec.final_norm is None else tensors.norm(spec.final_norm)
    before = final if adapter.norm == "before_pool" else None
    pool = _fold_pool(spec, tensors, before) if adapter.pool == "map" else None
    if final is not None and (pool is None or before is None):
        head = fold_layer_norm(*final, head)

    prefix_rows, patch_rows = _embedding_rows(spec, tensors)
    kernel = tensors("patch_embed.proj.weight")
    bias = tensors.optional("patch_embed.proj.bias", spec.width)
    patch_norm = tensors.norm("patch_embed.norm") if spec.patch_norm else None
    if patch_norm is None:
        bias = bias + patch_rows  # [N, d]
    else:
        patch_norm = Norm(patch_norm.gamma, patch_norm.beta + patch_rows)
        bias = np.broadcast_to(bias, patch_rows.shape)
    pixels, shift = fold_pixels(kernel, adapter.preprocess)
    norm_pre = tensors.norm("norm_pre") if spec.norm_pre else None
    if norm_pre is not None:
        prefix_rows = normalized(prefix_rows, spec.norm_eps, spec.norm)
        prefix_rows = prefix_rows * norm_pre.gamma + norm_pre.beta
    return Folded(
        patch=Linear(pixels, bias + shift),
        patch_float=(kernel, bias),
        patch_norm=patch_norm,
        prefix_rows=prefix_rows,
        norm_pre=norm_pre,
        blocks=_Blocks(spec.depth, lambda i: _fold_block(spec, tensors, prompt(i), i)),
        attention_pool=pool,
        head=head,
    )


def _fold_block(spec: BackboneSpec, tensors: Tensors, prompt: Array | None, i: int) -> Block:
    attentions, mlps = block_parts(spec, tensors, i)
    positions = rotation(spec, tensors, i), relative_bias(spec, tensors, i)
    return Block(
        attentions=tuple(_fold_attention(spec, a, prompt, positions, i) for a in attentions),
        mlps=tuple(_fold_mlp(spec, mlp) for mlp in mlps),
        normed=spec.block != "post",
        parallel=spec.block == "parallel",
    )


def _fold_attention(
    spec: BackboneSpec,
    parts: AttentionParts,
    prompt: Array | None,
    positions: tuple[Rotation | None, RelativeBias | None],
    i: int,
) -> Attention:
    post = spec.block == "post"
    q, k, v, proj = parts.q, parts.k, parts.v, parts.proj
    q_norm, k_norm = parts.q_norm, parts.k_norm
    if not post:
        q, k, v = (fold_layer_norm(*parts.norm, linear) for linear in (q, k, v))
    if positions[0] is not None and spec.rotary is not None and not spec.rotary.rotate_half:
        order = half_layout(spec.head_width)
        q, k = _reordered(q, order), _reordered(k, order)
        if q_norm is not None and k_norm is not None:
            q_norm, k_norm = (Norm(n.gamma[order], n.beta[order]) for n in (q_norm, k_norm))
    scale = 1.0 / math.sqrt(spec.head_width)
    if q_norm is None:
        q = fold_scale(q, scale)
    else:
        q_norm = Norm(q_norm.gamma * scale, q_norm.beta * scale)
    # A shift that all keys share changes no softmax; behind a norm or a rotation it is not shared.
    shared = k_norm is None and positions[0] is None
    if parts.out_norm is None:
        proj = fold_value_bias(_spread(v.b, spec.heads, spec.key_heads(i)), proj)
    else:
        proj = fold_layer_norm(*parts.out_norm, proj)
    if parts.scale is not None:
        proj = fold_layer_scale(proj, parts.scale)
    rows = np.zeros((0, spec.width)) if prompt is None else prompt
    return Attention(
        q=q,
        k=k.w,
        v=v.w,
        k_bias=None if shared or not k.b.any() else k.b,
        v_bias=v.b if parts.out_norm is not None and v.b.any() else None,
        q_norm=q_norm,
        k_norm=k_norm,
        proj=proj,
        out_norm=parts.out_norm is not None,
        post=parts.norm if post else None,
        rotation=positions[0],
        bias=positions[1],
        prompt=prompt,
        rows=rows if post or prompt is None else normalized(rows, spec.norm_eps, spec.norm),
        kv_heads=spec.key_heads(i),
        norm_eps=spec.norm_eps,
        norm_kind=spec.norm,
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


def _fold_pool(spec: BackboneSpec, tensors: Tensors, norm: Norm | None) -> Pool:
    """The latent query is a constant, so W_k q is one vector for each head."""
    pool, d, name = spec.attention_pool, spec.width, "attn_pool"
    if pool is None:
        raise AdapterError("pool is 'map', but the backbone has no attention pooling")
    heads = pool.heads
    query = tensors.linear(f"{name}.q")
    q = (tensors(f"{name}.latent")[0, 0] @ query.w + query.b) / math.sqrt(d // heads)  # [d]
    kv = tensors.linear(f"{name}.kv")
    if norm is not None:
        kv = fold_layer_norm(*norm, kv)
    k, v = Linear(kv.w[:, :d], kv.b[:d]), Linear(kv.w[:, d:], kv.b[d:])
    keys = np.einsum("dhe,he->dh", k.w.reshape(d, heads, -1), q.reshape(heads, -1))
    return Pool(
        keys=keys,
        values=np.ascontiguousarray(v.w.reshape(d, heads, -1).transpose(1, 0, 2)),
        proj=fold_value_bias(v.b, tensors.linear(f"{name}.proj")),
        fc1=fold_layer_norm(*tensors.norm(f"{name}.norm"), tensors.linear(f"{name}.mlp.fc1")),
        fc2=tensors.linear(f"{name}.mlp.fc2"),
    )


def _reordered(linear: Linear, order: NDArray[np.int64]) -> Linear:
    """The channels of every head in another order."""
    columns = np.arange(len(linear.b)).reshape(-1, len(order))[:, order].ravel()
    return Linear(linear.w[:, columns], linear.b[columns])


def _spread(values: Array, heads: int, kv_heads: int) -> Array:
    """[kv] → [d]: each key/value head serves a group of query heads."""
    return np.repeat(values.reshape(kv_heads, -1), heads // kv_heads, axis=0).ravel()


def _embedding_rows(spec: BackboneSpec, tensors: Tensors) -> tuple[Array, Array]:
    """Constant rows: tokens before the patches [prefix, d], and the patches' position [N, d]."""
    names = [
        *(["cls_token"] if spec.class_token else []),
        *(["dist_token"] if spec.dist_token else []),
        *(["reg_token"] if spec.registers else []),
    ]
    rows = [tensors(name)[0] for name in names]
    prefix = np.concatenate(rows) if rows else np.zeros((0, spec.width))
    position = np.zeros((spec.patches, spec.width))
    if spec.pos_embed != "none":
        position = tensors("pos_embed")[0]
    if spec.pos_embed == "all":
        return prefix + position[: spec.prefix], position[spec.prefix :]
    return prefix, position
