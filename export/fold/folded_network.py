"""A network after folding: what a graph is written from, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, overload

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from vptkit.formats.backbone_spec import BackboneSpec

    from .block_tensors import Array, Linear, Norm
    from .position_encoding import RelativeBias, Rotation
from .equations import normalized

__all__ = [
    "Absorbed",
    "Attention",
    "Block",
    "Folded",
    "LastBlock",
    "Mlp",
    "Pool",
    "absorb_keys_values",
    "absorbable",
]

# How the last block is written where only the class token is read (docs/export.md)
LastBlock = Literal["absorbed", "query", "full"]


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


def absorb_keys_values(attention: Attention, heads: int) -> Absorbed:
    """Per-head key and value weights, for the last block with one query."""
    d = len(attention.k)
    k = attention.k.reshape(d, heads, -1).transpose(1, 2, 0)
    v = attention.v.reshape(d, heads, -1).transpose(1, 0, 2)
    return Absorbed(np.ascontiguousarray(k), np.ascontiguousarray(v))


def absorbable(spec: BackboneSpec) -> bool:
    """Whether the last block has the absorbed form: nothing may stand between W_k, W_v and x̂."""
    return not (
        spec.qk_norm or spec.attention_norm or spec.kv_heads or spec.rotary or spec.relative
    )
