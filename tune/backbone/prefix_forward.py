"""The forward pass for training: deep prompts as key/value prefixes.

At each block the rows of deep prompts only serve as keys and values: what a block makes of them is
thrown away. So they never become queries or MLP rows, and the GEMMs see T rows instead of T + m.
Exact, also in its gradients (tests compare with `reference`); timm's own modules and weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from .low_rank_linear import linear_rows
from .reference import embed, features, final
from .timm_classes import Attention

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["fast_features", "prefix_block", "prefix_keys_values"]


def fast_features(
    model: Any, pixels: Tensor, prompts: Sequence[Tensor], insert: str, pool: str, norm: str
) -> Tensor:
    """As `reference.features`, for less work; same arguments, same result."""
    if insert == "shallow" or not all(map(_is_plain, model.blocks)):
        return features(model, pixels, prompts, insert, pool, norm)
    z = embed(model, pixels)  # [B, T, d]
    blocks = list(model.blocks)
    for i, block in enumerate(blocks[:-1]):
        z = prefix_block(block, z, prompts[i] if prompts else None)
    prompt = prompts[-1] if prompts else None
    if pool == "token":  # only the class row is read
        z = prefix_block(blocks[-1], z, prompt, queries=1)  # [B, 1, d]
    elif pool == "avg_prompts" and prompt is not None:  # the prompts' outputs are read
        z = torch.cat([z, prompt.expand(len(z), -1, -1)], dim=1)
        z = blocks[-1](z)  # [B, T + m, d], prompts last
    else:
        z = prefix_block(blocks[-1], z, prompt)
    return final(model, z, model.num_prefix_tokens, pool, norm)


def _is_plain(block: Any) -> bool:
    """Whether `prefix_block` knows the block: pre-norm, nothing between qkv and proj."""
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


def prefix_block(
    block: Any, z: Tensor, prompt: Tensor | None = None, queries: int | None = None
) -> Tensor:
    """One timm block whose prompts are keys and values only.

    Args:
        block: a timm `Block` with plain attention.
        z: [B, T, d]
        prompt: [m, d], or None.
        queries: compute only this many rows, the first ones.

    Returns:
        [B, T, d], or [B, queries, d].
    """
    attn = block.attn
    heads, d = attn.num_heads, z.shape[-1]

    def split(rows: Tensor) -> Tensor:  # [B, t, d] → [B, h, t, e]
        return rows.reshape(*rows.shape[:2], heads, -1).transpose(1, 2)

    x = block.norm1(z)
    if queries is None:
        q, k, v = (split(rows) for rows in attn.qkv(x).chunk(3, dim=-1))
    else:
        z = z[:, :queries]
        q = split(linear_rows(attn.qkv, x[:, :queries], slice(d)))
        k, v = (split(rows) for rows in linear_rows(attn.qkv, x, slice(d, None)).chunk(2, dim=-1))
    if prompt is not None:
        k_p, v_p = (split(rows[None]) for rows in prefix_keys_values(block, prompt))  # [1, h, m, e]
        k = torch.cat([k_p.expand(len(z), -1, -1, -1), k], dim=2)  # [B, h, m + T, e]
        v = torch.cat([v_p.expand(len(z), -1, -1, -1), v], dim=2)
    a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # [B, t, d]
    z = z + block.ls1(attn.proj(a))
    return cast("Tensor", z + block.ls2(block.mlp(block.norm2(z))))
