"""The exact folds: backbone + adapter → fewer, larger constants.

Everything here is float64 numpy and a pure function of its arguments. Linears act on the right,
y = x W + b with W [in, out] (the transpose of torch's layout). x̂ is a normalised row,
x̂ = (x - mean x) / sqrt(var x + eps).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from vptkit.adapter import Adapter
    from vptkit.backbone import BackboneSpec
    from vptkit.preprocess import Preprocess

    Array = NDArray[np.float64]

__all__ = [
    "Absorbed",
    "Block",
    "Folded",
    "Linear",
    "absorb_keys_values",
    "fold",
    "fold_layer_norm",
    "fold_layer_scale",
    "fold_pixels",
    "fold_scale",
    "fold_value_bias",
    "normalized",
]


class Linear(NamedTuple):
    """y = x w + b."""

    w: Array  # [in, out]
    b: Array  # [out]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One folded block: x̂ → q, k, v without affine, scale, key bias or value bias.

    Attributes:
        q: includes the attention scale.
        k, v: [d, d], no bias.
        proj, fc1, fc2: include LayerNorm's affine and LayerScale.
        prompt: P as rows [m, d], or None.
    """

    q: Linear
    k: Array
    v: Array
    proj: Linear
    fc1: Linear
    fc2: Linear
    prompt: Array | None

    def prefix(self, eps: float) -> tuple[Array, Array]:
        """Constant keys and values of the prompts, [m, d] each.

        K_p = P̂ (γ W_k), V_p = P̂ (γ W_v): the shifts β W + b are shared with all other keys and
        values and were dropped or moved there as well.
        """
        rows = normalized(self.prompt_rows(), eps)
        return rows @ self.k, rows @ self.v

    def prompt_queries(self, eps: float) -> Array:
        """Queries of the prompts [m, d], for blocks whose prompt outputs are read."""
        return normalized(self.prompt_rows(), eps) @ self.q.w + self.q.b

    def prompt_rows(self) -> Array:
        """P [m, d].

        Raises:
            ValueError: this block has no prompts.
        """
        if self.prompt is None:
            raise ValueError("this block has no prompts")
        return self.prompt


class Absorbed(NamedTuple):
    """The last block for one query: keys and values are never formed.

    q_h (x̂ W_k,h)ᵀ = (q_h W_k,hᵀ) x̂ᵀ and a_h (x̂ W_v,h) = (a_h x̂) W_v,h for each head h.
    """

    k: Array  # [h, e, d] = W_k,hᵀ
    v: Array  # [h, d, e] = W_v,h


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """A whole network, folded.

    Attributes:
        patch: w [ph * pw * 3, d] in the order (row, column, channel), for pixels 0..255; b [N, d]
            holds bias and position embedding.
        patch_float: the same for normalised pixels, torch's layout [d, 3, ph, pw] and b [N, d].
        prefix_rows: the tokens before the patches [prefix, d], behind norm_pre.
        norm_pre: affine of norm_pre (gamma, beta), or None.
        blocks: L of them; `fold` computes one when it is asked for, and keeps none.
        head: final norm's affine folded in.
    """

    patch: Linear
    patch_float: tuple[Array, Array]
    prefix_rows: Array
    norm_pre: tuple[Array, Array] | None
    blocks: Sequence[Block]
    head: Linear


class _Blocks(Sequence[Block]):
    """Blocks computed on demand: a large ViT in float64 would not fit on a small board."""

    def __init__(self, count: int, block: Callable[[int], Block]) -> None:
        self._count, self._block = count, block

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, i: int) -> Block: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Block]: ...
    def __getitem__(self, i: int | slice) -> Block | Sequence[Block]:
        if isinstance(i, slice):
            numbers = range(self._count)[i]
            return _Blocks(len(numbers), lambda n: self._block(numbers[n]))
        return self._block(range(self._count)[i])


def normalized(x: Array, eps: float) -> Array:
    """x̂ = (x - mean) / sqrt(var + eps), over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
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


def absorb_keys_values(block: Block, heads: int) -> Absorbed:
    """Per-head key and value weights, for the last block with one query."""
    d = len(block.k)
    k = block.k.reshape(d, heads, -1).transpose(1, 2, 0)
    v = block.v.reshape(d, heads, -1).transpose(1, 0, 2)
    return Absorbed(np.ascontiguousarray(k), np.ascontiguousarray(v))


def fold(spec: BackboneSpec, weights: Mapping[str, NDArray[Any]], adapter: Adapter) -> Folded:
    """Fold a backbone and an adapter into one network.

    Args:
        spec: describes the backbone.
        weights: its tensors by timm name.
        adapter: prompts, tuned LayerNorm parameters (which replace the backbone's) and head.

    Returns:
        The folded network, float64.
    """
    tuned = {**weights, **adapter.layer_norms()}

    def tensor(name: str, default: float | None = None, size: int = 0) -> Array:
        if name not in tuned and default is not None:
            return np.full(size, default)
        return np.asarray(tuned[name], dtype=np.float64)

    def linear(name: str) -> Linear:
        w = tensor(f"{name}.weight").T
        return Linear(w, tensor(f"{name}.bias", 0.0, w.shape[1]))

    def affine(name: str) -> tuple[Array, Array]:
        return tensor(f"{name}.weight"), tensor(f"{name}.bias")

    def block(i: int) -> Block:
        name, d = f"blocks.{i}", spec.width
        qkv = fold_layer_norm(*affine(f"{name}.norm1"), linear(f"{name}.attn.qkv"))
        q, _, v = (Linear(qkv.w[:, s], qkv.b[s]) for s in _thirds(d))
        proj = fold_value_bias(v.b, linear(f"{name}.attn.proj"))
        return Block(
            q=fold_scale(q, 1.0 / math.sqrt(spec.head_width)),
            k=qkv.w[:, d : 2 * d],
            v=v.w,
            proj=fold_layer_scale(proj, tensor(f"{name}.ls1.gamma", 1.0, d)),
            fc1=fold_layer_norm(*affine(f"{name}.norm2"), linear(f"{name}.mlp.fc1")),
            fc2=fold_layer_scale(linear(f"{name}.mlp.fc2"), tensor(f"{name}.ls2.gamma", 1.0, d)),
            prompt=adapter.prompts(i)
            if adapter.insert == "deep" or (adapter.insert == "shallow" and i == 0)
            else None,
        )

    head = Linear(
        np.asarray(adapter.tensors["head.weight"], dtype=np.float64).T,
        np.asarray(adapter.tensors["head.bias"], dtype=np.float64),
    )
    if spec.final_norm is not None:
        head = fold_layer_norm(*affine(spec.final_norm), head)

    prefix_rows, patch_rows = _embedding_rows(spec, tensor)
    kernel = tensor("patch_embed.proj.weight")
    bias = tensor("patch_embed.proj.bias", 0.0, spec.width) + patch_rows  # [N, d]
    pixels, shift = fold_pixels(kernel, adapter.preprocess)
    norm_pre = affine("norm_pre") if spec.norm_pre else None
    if norm_pre is not None:
        prefix_rows = normalized(prefix_rows, spec.norm_eps) * norm_pre[0] + norm_pre[1]
    return Folded(
        patch=Linear(pixels, bias + shift),
        patch_float=(kernel, bias),
        prefix_rows=prefix_rows,
        norm_pre=norm_pre,
        blocks=_Blocks(spec.depth, block),
        head=head,
    )


def _thirds(d: int) -> tuple[slice, slice, slice]:
    return slice(0, d), slice(d, 2 * d), slice(2 * d, 3 * d)


def _embedding_rows(spec: BackboneSpec, tensor: Any) -> tuple[Array, Array]:
    """Constant rows: tokens before the patches [prefix, d], and the patches' position [N, d]."""
    names = [
        *(["cls_token"] if spec.class_token else []),
        *(["dist_token"] if spec.dist_token else []),
        *(["reg_token"] if spec.registers else []),
    ]
    rows = [tensor(name)[0] for name in names]
    prefix = np.concatenate(rows) if rows else np.zeros((0, spec.width))
    position = np.zeros((spec.patches, spec.width))
    if spec.pos_embed != "none":
        position = tensor("pos_embed")[0]
    if spec.pos_embed == "all":
        return prefix + position[: spec.prefix], position[spec.prefix :]
    return prefix, position
