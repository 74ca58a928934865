"""The forward pass for training: deep prompts as key/value prefixes.

At each block the rows of deep prompts only serve as keys and values: what a block makes of them is
thrown away. So they never become queries or MLP rows, and the GEMMs see T rows instead of T + m.
Exact, also in its gradients (tests compare with `reference`); timm's own modules and weights.

With `recompute` a block's activations are not kept for the backward pass but computed again there
(Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016): the same numbers, bit by bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .low_rank_linear import linear_rows
from .reference import embed, features, final
from .timm_classes import Attention
from .token_merging import match_tokens, merge_rows, size_bias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vptkit.backbones.merge_schedule import TokenMerging

__all__ = ["fast_features", "mlp_added", "prefix_attention", "prefix_keys_values"]


def fast_features(
    model: Any,
    pixels: Tensor,
    prompts: Sequence[Tensor],
    insert: str,
    pool: str,
    norm: str,
    merging: TokenMerging | None = None,
    recompute: bool = False,
) -> Tensor:
    """As `reference.features`, for less work; same arguments, same result.

    Args:
        model, pixels, prompts, insert, pool, norm, merging: of `reference.features`.
        recompute: keep of each block its input alone; a backward pass takes another forward pass.
    """
    run = _recomputed if recompute and torch.is_grad_enabled() else _called
    if insert == "shallow" or not all(map(_is_plain, model.blocks)):
        return features(model, pixels, prompts, insert, pool, norm, merging=merging, run=run)
    z = embed(model, pixels)  # [B, T, d]
    blocks, k = list(model.blocks), model.num_prefix_tokens
    size: Tensor | None = None  # all ones until something is merged
    for i, block in enumerate(blocks[:-1]):
        r = 0 if merging is None else merging.schedule[i]
        prompt, bias = prompts[i] if prompts else None, _bias(size, merging)
        z, size = run(_prefix_block, block, z, prompt, size, bias, k, r)
    prompt, bias = prompts[-1] if prompts else None, _bias(size, merging)
    if pool == "avg_prompts" and prompt is not None:  # the prompts' outputs are read
        m, z = len(prompt), torch.cat([z, prompt.expand(len(z), -1, -1)], dim=1)
        bias = None if bias is None else F.pad(bias, (0, m))
        size = None if size is None else F.pad(size, (0, m), value=1.0)
        z, _ = prefix_attention(blocks[-1], z, bias=bias)  # [B, T + m, d], prompts last
    else:  # of pool "token" only the class row is read
        z, _ = prefix_attention(blocks[-1], z, prompt, 1 if pool == "token" else None, bias)
    return final(model, mlp_added(blocks[-1], z), k, pool, norm, size)


def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    """Function(*arguments)."""
    return function(*arguments)


def _recomputed(function: Callable[..., Any], *arguments: Any) -> Any:
    """Function(*arguments), whose inner results are computed again when gradients need them."""
    return checkpoint(function, *arguments, use_reentrant=False)


def _prefix_block(
    block: Any,
    z: Tensor,
    prompt: Tensor | None,
    size: Tensor | None,
    bias: Tensor | None,
    protected: int,
    r: int,
) -> tuple[Tensor, Tensor | None]:
    """A whole block, of which only z is kept: its tokens, and their sizes once any are merged.

    Args:
        block, z, prompt, bias: of `prefix_attention`.
        size: of the tokens [B, T]; None while all are 1.
        protected, r: of `match_tokens`; of r = 0 nothing is merged.
    """
    z, keys = prefix_attention(block, z, prompt, bias=bias)
    if r:
        size = z.new_ones(z.shape[:2]) if size is None else size
        z, size = merge_rows(z, size, match_tokens(keys, protected, r))
    return mlp_added(block, z), size


def _bias(size: Tensor | None, merging: TokenMerging | None) -> Tensor | None:
    """Of the keys' logits, where tokens were merged and attention is proportional."""
    if merging is None or size is None or not merging.proportional:
        return None
    return size_bias(size)


def _is_plain(block: Any) -> bool:
    """Whether `prefix_attention` knows the block: pre-norm, nothing between qkv and proj."""
    return (
        type(block) is Block
        and type(block.attn) is Attention
        and isinstance(block.attn.q_norm, nn.Identity)
        and isinstance(getattr(block.attn, "norm", nn.Identity()), nn.Identity)
    )


def prefix_keys_values(block: Any, prompt: Tensor) -> tuple[Tensor, Tensor]:
    """K_p = LN(P) W_k + b_k and V_p = LN(P) W_v + b_v, what a block makes of its deep prompts.

    The export says the same in numpy, with the norm's affine folded into the linears
    (export/fold/prefix_keys_values.py); tests/integration/test_prefix_equal.py holds both together.

    Args:
        block: a timm `Block` with plain attention.
        prompt: P [m, d].

    Returns:
        K_p and V_p [m, d].
    """
    kv = linear_rows(block.attn.qkv, block.norm1(prompt), slice(prompt.shape[-1], None))
    keys, values = kv.chunk(2, dim=-1)
    return keys, values


def prefix_attention(
    block: Any,
    z: Tensor,
    prompt: Tensor | None = None,
    queries: int | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The first half of a timm block, whose prompts are keys and values only.

    Args:
        block: a timm `Block` with plain attention.
        z: [B, T, d]
        prompt: [m, d], or None.
        queries: compute only this many rows, the first ones.
        bias: on the logits of the keys of z, [B, 1, 1, T]; those of prompts get none.

    Returns:
        z and its attention's sum, [B, T, d] or [B, queries, d], and the keys of z [B, h, T, e].
    """
    attn = block.attn
    heads, d = attn.num_heads, z.shape[-1]

    def split(rows: Tensor) -> Tensor:  # [B, t, d] → [B, h, t, e]
        return rows.reshape(*rows.shape[:2], heads, -1).transpose(1, 2)

    x = block.norm1(z)
    if prompt is None and queries is None:
        q, k, v = (split(rows) for rows in attn.qkv(x).chunk(3, dim=-1))
        keys = k
    else:  # queries apart: a view of all three would hold them in memory beside the joined rows
        z = z[:, :queries]
        q = split(linear_rows(attn.qkv, x[:, :queries], slice(d)))
        kv = linear_rows(attn.qkv, x, slice(d, None))  # [B, T, 2 d]
        keys = split(kv[..., :d])
        if prompt is not None:
            kv_p = torch.cat(prefix_keys_values(block, prompt), dim=-1)  # [m, 2 d]
            kv = torch.cat([kv_p.expand(len(z), -1, -1), kv], dim=1)  # [B, m + T, 2 d]
        k, v = (split(rows) for rows in kv.chunk(2, dim=-1))
    if bias is not None:
        bias = F.pad(bias, (k.shape[2] - keys.shape[2], 0)).to(q.dtype)  # prompts stand in front
    a = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # [B, h, t, e]
    return z + block.ls1(attn.proj(a.transpose(1, 2).flatten(2))), keys


def mlp_added(block: Any, z: Tensor) -> Tensor:
    """The second half of a timm block: [B, t, d] → [B, t, d]."""
    return cast("Tensor", z + block.ls2(block.mlp(block.norm2(z))))
