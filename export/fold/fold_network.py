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

from .block_tensors import Linear, Norm, Tensors
from .equations import fold_layer_norm, fold_pixels, fold_value_bias, normalized
from .fold_block import fold_block
from .folded_network import Folded, Pool
from .lazy_blocks import LazyBlocks

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from vptkit.formats.adapter import Adapter
    from vptkit.formats.backbone_spec import BackboneSpec

    from .block_tensors import Array

__all__ = ["block_prompt", "fold", "fold_head"]


def fold(
    spec: BackboneSpec,
    weights: Mapping[str, NDArray[Any]],
    adapter: Adapter,
    *,
    value_bias: Collection[int] = (),
    keep_final_norm: bool = False,
) -> Folded:
    """Fold a backbone and an adapter into one network.

    Args:
        spec: describes the backbone.
        weights: its tensors by timm name.
        adapter: prompts, learned keys and values, tuned LayerNorm parameters (which replace the backbone's), weight deltas
            (each is applied to its tensor when that is folded) and head.
        value_bias: blocks whose values keep their bias: a bank changes the projection behind it.
        keep_final_norm: leave the affine of the norm before the head where it stands, for graphs
            that give what the head reads (`Folded.final_norm`).

    Returns:
        The folded network, float64; its blocks are folded when a graph is written (`LazyBlocks`).

    Raises:
        AdapterError: the adapter pools as the backbone cannot.
    """
    tensors = Tensors(weights, adapter)
    final = None if spec.final_norm is None else tensors.norm(spec.final_norm)
    before = final if adapter.norm == "before_pool" else None
    pool = _fold_pool(spec, tensors, before) if adapter.pool == "map" else None
    outside = final if pool is None or before is None else None  # the norm before the head
    head = fold_head(adapter, None if keep_final_norm else outside)

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
        blocks=LazyBlocks(
            lambda i: fold_block(
                spec,
                tensors,
                block_prompt(adapter, spec, i),
                i,
                learned=adapter.learned_prefix(i),
                value_bias=i in value_bias,
            ),
            spec.depth,
        ),
        attention_pool=pool,
        head=head,
        final_norm=outside if keep_final_norm else None,
    )


def fold_head(adapter: Adapter, norm: Norm | None) -> Linear:
    """The head as it acts on x̂: W [d, C], or [2 d, C] whose halves are rows normalised apart.

    Args:
        adapter: whose head.
        norm: affine of the norm before it, or None where there is none to fold.
    """
    head = Linear(
        np.asarray(adapter.tensors["head.weight"], dtype=np.float64).T,
        np.asarray(adapter.tensors["head.bias"], dtype=np.float64),
    )
    if norm is None:
        return head
    rows = len(head.w) // len(norm.gamma)
    return fold_layer_norm(np.tile(norm.gamma, rows), np.tile(norm.beta, rows), head)


def block_prompt(adapter: Adapter, spec: BackboneSpec, i: int) -> Array:
    """P [m, d], the prompts that the adapter inserts before block i; [0, d] where it has none."""
    if adapter.insert == "deep" or (adapter.insert == "shallow" and i == 0):
        return adapter.prompts(i)
    return np.zeros((0, spec.width))


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
