"""The last block where only the class token is read: how it may be written, and its absorbed form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from vptkit.formats.backbone_spec import BackboneSpec

    from .block_tensors import Array

__all__ = ["Absorbed", "LastBlock", "absorb_keys_values", "absorbable"]

# Forms of the last block (docs/export.md); `graph.graph_options.GraphOptions` says what each is for
LastBlock = Literal["absorbed", "query", "full"]


class Absorbed(NamedTuple):
    """The last block for one query: keys and values are never formed.

    q_h (x̂ W_k,h)ᵀ = (q_h W_k,hᵀ) x̂ᵀ and a_h (x̂ W_v,h) = (a_h x̂) W_v,h for each head h.
    """

    k: Array  # [h, e, d] = W_k,hᵀ
    v: Array  # [h, d, e] = W_v,h


def absorb_keys_values(k: Array, v: Array, heads: int) -> Absorbed:
    """Key and value weights [d, d] head by head."""
    d = len(k)
    by_head = k.reshape(d, heads, -1).transpose(1, 2, 0), v.reshape(d, heads, -1).transpose(1, 0, 2)
    return Absorbed(*map(np.ascontiguousarray, by_head))


def absorbable(spec: BackboneSpec) -> bool:
    """Whether the last block has the absorbed form: nothing may stand between W_k, W_v and x̂."""
    return not (
        spec.qk_norm or spec.attention_norm or spec.kv_heads or spec.rotary or spec.relative
    )
