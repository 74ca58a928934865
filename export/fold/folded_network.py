"""A network after folding: the arrays that a graph is written from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .block_tensors import Array, Linear, Norm
    from .position_encoding import RelativeBias, Rotation

__all__ = ["Attention", "Block", "Folded", "Mlp", "Pool", "Prefix"]


class Prefix(NamedTuple):
    """What one attention makes of a block's prompts (see `prefix_keys_values`); m is 0 without.

    Behind their keys and values stand n that were learned as such (`learned_keys_values`). Queries are read only in a block whose prompt outputs are (shallow prompts in block 0, and the
    last block where the pool averages prompts too).
    """

    keys: Array  # K_p [m + n, kv]
    values: Array  # V_p [m + n, kv]
    queries: Array  # Q_p [m, d]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """One folded attention: rows → queries, keys, values → what is added to the residual.

    In a pre-norm block the rows are x̂ and the norm's affine is in q, k and v; in a post-norm block
    they are z itself.

    Attributes:
        q: includes the attention scale (or q_norm does, where there is one).
        k, v: [d, kv]; their biases are dropped or moved wherever that is exact, else k_bias, v_bias.
        k_lost: [kv], what was dropped of all keys; token merging compares keys with it.
        q_norm, k_norm: for each head, or None.
        prefix: the prompts' keys, values and queries, and learned keys and values.
        proj: includes the affine of out_norm, and LayerScale.
        out_norm: rows are normalised (without affine) before proj.
        post: affine of the norm behind the branch, or None.
        rotation, bias: positions, or None.
        kv_heads: heads of keys and values.
    """

    q: Linear
    k: Array
    v: Array
    k_bias: Array | None
    v_bias: Array | None
    k_lost: Array
    q_norm: Norm | None
    k_norm: Norm | None
    prefix: Prefix
    proj: Linear
    out_norm: bool
    post: Norm | None
    rotation: Rotation | None
    bias: RelativeBias | None
    kv_heads: int


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
        prompt: P as rows [m, d], the tokens that are inserted before the block; m is 0 without.
        prompt_seen: P as the branches see it [m, d]: P̂ in a pre-norm block, else P.
        attentions, mlps: each group's sum is added to the residual.
        normed: the branches see x̂, not z.
        parallel: the MLP sees the same rows as the attention, and both are added at once.
    """

    prompt: Array
    prompt_seen: Array
    attentions: tuple[Attention, ...]
    mlps: tuple[Mlp, ...]
    normed: bool
    parallel: bool


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
        blocks: L of them, in order; of `fold` they are `LazyBlocks`: folded as one goes through.
        attention_pool: for pool "map", final norm's affine folded in if it stands before.
        head: [d, C] or [2 d, C]; final norm's affine folded in, if nothing stands between.
        final_norm: that affine where it was not to be folded; else None.
    """

    patch: Linear
    patch_float: tuple[Array, Array]
    patch_norm: Norm | None
    prefix_rows: Array
    norm_pre: Norm | None
    blocks: Iterable[Block]
    attention_pool: Pool | None
    head: Linear
    final_norm: Norm | None = None
