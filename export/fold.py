"""The exact folds: backbone + adapter → fewer, larger constants.

Everything here is float64 numpy and a pure function of its arguments. Linears act on the right,
y = x W + b with W [in, out] (the transpose of torch's layout). x̂ is a normalised row,
x̂ = (x - mean x) / sqrt(var x + eps), or x / sqrt(mean x² + eps) where the backbone's norms are RMS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from vptkit.errors import AdapterError

from .parts import Linear, Norm, Tensors, block_parts
from .positions import RelativeBias, Rotation, half_layout, relative_bias, rotation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from vptkit.formats.adapter import Adapter
    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.images.preprocess import Preprocess

    from .parts import Array, AttentionParts, MlpParts

__all__ = [
    "Absorbed",
    "Attention",
    "Block",
    "Folded",
    "Linear",
    "Mlp",
    "Norm",
    "Pool",
    "absorb_keys_values",
    "fold",
    "fold_layer_norm",
    "fold_layer_scale",
    "fold_pixels",
    "fold_scale",
    "fold_value_bias",
    "normalized",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """One folded attention: rows → queries, keys, values → what is added to the residual.

    In a pre-norm block the rows are x̂ and the norm's affine is in q, k and v; in a post-norm block
    they are z itself.

    Attributes:
        q: includes the attention scale (or q_norm does, where there is one).
        k, v: [d, kv]; their biases are dropped or moved wherever that is exact, else k_bias, v_bias.
        q_norm, k_norm: for each head, or None.
        proj: includes the affine of out_norm, and LayerScale.
        out_norm: rows are normalised (without affine) before proj.
        post: affine of the norm behind the branch, or None.
        rotation, bias: positions, or None.
        prompt: P as rows [m, d], or None.
        rows: P as the attention sees it, P̂ in a pre-norm block; [0, d] without prompts.
        kv_heads: heads of keys and values.
        norm_eps, norm_kind: of k_norm and q_norm.
    """

    q: Linear
    k: Array
    v: Array
    k_bias: Array | None
    v_bias: Array | None
    q_norm: Norm | None
    k_norm: Norm | None
    proj: Linear
    out_norm: bool
    post: Norm | None
    rotation: Rotation | None
    bias: RelativeBias | None
    prompt: Array | None
    rows: Array
    kv_heads: int
    norm_eps: float
    norm_kind: str

    def prefix(self) -> tuple[Array, Array]:
        """Constant keys and values of the prompts, [m, kv] each.

        K_p = P̂ (γ W_k), V_p = P̂ (γ W_v): the shifts β W + b are shared with all other keys and
        values and were dropped or moved there as well. Prompts take no rotation.
        """
        keys = self.rows @ self.k + (0.0 if self.k_bias is None else self.k_bias)
        values = self.rows @ self.v + (0.0 if self.v_bias is None else self.v_bias)
        return self._by_head(keys, self.k_norm), np.asarray(values)

    def prompt_queries(self) -> Array:
        """Queries of the prompts [m, d], for blocks whose prompt outputs are read."""
        return self._by_head(self.rows @ self.q.w + self.q.b, self.q_norm)

    def prompt_rows(self) -> Array:
        """P [m, d].

        Raises:
            ValueError: this block has no prompts.
        """
        if self.prompt is None:
            raise ValueError("this block has no prompts")
        return self.prompt

    def _by_head(self, rows: Array, norm: Norm | None) -> Array:
        if norm is None:
            return np.asarray(rows)
        heads = rows.reshape(len(rows), -1, len(norm.gamma))
        heads = normalized(heads, self.norm_eps, self.norm_kind) * norm.gamma + norm.beta
        return np.asarray(heads.reshape(rows.shape))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlp:
    """One folded MLP: rows → what is added to the residual.

    Attributes:
        fc1, gate: include the norm's affine in a pre-norm block; gate is None in a plain MLP.
        out_norm: rows are normalised (without affine) before fc2.
        fc2: includes the affine of out_norm, and LayerScale.
        post: affine of the norm behind the branch, or None.
    """

    fc1: Linear
    gate: Linear | None
    out_norm: bool
    fc2: Linear
    post: Norm | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One folded block; nearly always one attention, then one MLP.

    Attributes:
        attentions, mlps: each group's sum is added to the residual; the prompts are the same.
        normed: the branches see x̂, not z.
        parallel: the MLP sees the same rows as the attention, and both are added at once.
    """

    attentions: tuple[Attention, ...]
    mlps: tuple[Mlp, ...]
    normed: bool
    parallel: bool

    @property
    def prompt(self) -> Array | None:
        """P as rows [m, d], or None."""
        return self.attentions[0].prompt

    def prompt_rows(self) -> Array:
        """P [m, d].

        Raises:
            ValueError: this block has no prompts.
        """
        return self.attentions[0].prompt_rows()


class Absorbed(NamedTuple):
    """The last block for one query: keys and values are never formed.

    q_h (x̂ W_k,h)ᵀ = (q_h W_k,hᵀ) x̂ᵀ and a_h (x̂ W_v,h) = (a_h x̂) W_v,h for each head h.
    """

    k: Array  # [h, e, d] = W_k,hᵀ
    v: Array  # [h, d, e] = W_v,h


class Pool(NamedTuple):
    """Attention pooling with a constant query: keys and values are never formed.

    scores = x̂ (W_k,h q_h), features = (softmax(scores) x̂) W_v,h; then x + MLP(norm x).
    """

    keys: Array  # [d, h], scale and latent query included
    values: Array  # [h, d, e]
    proj: Linear
    fc1: Linear
    fc2: Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """A whole network, folded.

    Attributes:
        patch: w [ph * pw * 3, d] in the order (row, column, channel), for pixels 0..255; b [N, d]
            holds bias and position embedding.
        patch_float: the same for normalised pixels, torch's layout [d, 3, ph, pw] and b [N, d].
        patch_norm: affine of a norm behind it; then its beta [N, d] holds the position, not b.
        prefix_rows: the tokens before the patches [prefix, d], behind norm_pre.
        norm_pre: affine of norm_pre (gamma, beta), or None.
        blocks: L of them; `fold` computes one when it is asked for, and keeps none.
        attention_pool: for pool "map", final norm's affine folded in if it stands before.
        head: final norm's affine folded in, if nothing stands between.
    """

    patch: Linear
    patch_float: tuple[Array, Array]
    patch_norm: Norm | None
    prefix_rows: Array
    norm_pre: Norm | None
    blocks: Sequence[Block]
    attention_pool: Pool | None
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


def absorb_keys_values(attention: Attention, heads: int) -> Absorbed:
    """Per-head key and value weights, for the last block with one query."""
    d = len(attention.k)
    k = attention.k.reshape(d, heads, -1).transpose(1, 2, 0)
    v = attention.v.reshape(d, heads, -1).transpose(1, 0, 2)
    return Absorbed(np.ascontiguousarray(k), np.ascontiguousarray(v))


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
