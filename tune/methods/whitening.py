"""Whitening matrices for prompts (BPT, ICCV 2025, section 3.2; `methods` 1.3 and 4.1).

Attention compares a prompt p with a token x through p (W_q W_kᵀ) xᵀ. The right-hand side,
X~ = W_q W_kᵀ Xᵀ, is "bursty" and correlated; with Σ = (1/N) X~ X~ᵀ and W = Σ^(-1/2), prompts
P~ = P Wᵀ meet whitened data instead. All heads together, biases ignored, no centring.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from vptkit.errors import VptkitError
from vptkit.tune.backbone.reference import call_block, embed, merging_block
from vptkit.tune.backbone.token_merging import MergedTokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vptkit.backbones.merge_schedule import TokenMerging

__all__ = ["Moments", "Whitening", "query_key_weights", "token_moments", "whitening"]


@dataclass(frozen=True, slots=True)
class Moments:
    """Second moments of the tokens that enter one block.

    Attributes:
        second: mean over images and tokens of x xᵀ, float64 [d, d].
        mean_tokens: mean over images, token by token, float64 [T, d] (the released code's input).
        count: number of token rows seen.
    """

    second: Tensor
    mean_tokens: Tensor
    count: int


@dataclass(frozen=True, slots=True)
class Whitening:
    """A symmetric whitening matrix (ZCA) and what is worth knowing about it.

    Attributes:
        matrix: W, float64 [d, d].
        rank: eigenvalues of Σ above the floor.
        condition: largest over smallest eigenvalue of Σ, before the floor.
        condition_is_bound: float64 cannot tell the smallest from zero (it is below d eps times the
            largest): the condition is at least so large.
        row_norm: mean norm of W's rows: initial prompts are 0.02 times this large.
    """

    matrix: Tensor
    rank: int
    condition: float
    condition_is_bound: bool
    row_norm: float

    def to_json(self) -> dict[str, Any]:
        """All but the matrix."""
        return {
            "rank": self.rank,
            "condition": self.condition,
            "condition_is_bound": self.condition_is_bound,
            "row_norm": self.row_norm,
        }


@torch.no_grad()
def token_moments(
    model: Any,
    batches: Iterable[Tensor],
    tap: Literal["pre_ln1", "post_ln1"] = "pre_ln1",
    merging: TokenMerging | None = None,
) -> list[Moments]:
    """Moments of the tokens entering each block, streamed in float64; no prompts inserted.

    Args:
        model: a frozen timm Vision Transformer in evaluation mode.
        batches: normalised pixels, float [B, 3, H, W] each.
        tap: the block's input, or its first LayerNorm's output.
        merging: how blocks merge tokens; a merged token counts once.

    Returns:
        One `Moments` per block.
    """
    sums: list[Tensor] = []
    tokens: list[Tensor] = []
    images = 0
    for pixels in batches:
        z = embed(model, pixels)
        merged = MergedTokens(z.new_ones(z.shape[:2]))
        images += len(z)
        for i, block in enumerate(model.blocks):
            require_one_attention(block)
            x = (z if tap == "pre_ln1" else block.norm1(z)).double()
            rows = x.flatten(0, 1)
            second, total = rows.T @ rows, x.sum(dim=0)
            if i == len(sums):
                sums.append(second)
                tokens.append(total)
            else:
                sums[i] += second
                tokens[i] += total
            if merging is None:
                z = call_block(model, i, z)
            else:
                z, merged = merging_block(model, i, z, merged, merging)
    return [
        Moments(second / (images * len(total)), total / images, images * len(total))
        for second, total in zip(sums, tokens, strict=True)
    ]


def require_one_attention(block: Any) -> None:
    """Whitening is defined for a block with one norm and one attention (methods 1.2).

    Raises:
        VptkitError: the block has several branches, fuses its MLP, or shares key heads.
    """
    attn = getattr(block, "attn", None)
    heads = getattr(attn, "num_heads", None)
    if attn is None or getattr(attn, "num_kv_heads", heads) != heads:
        raise VptkitError(
            f"whitening is not defined for blocks of type {type(block).__name__}: pass "
            "--form bilinear, or another method"
        )


def query_key_weights(attn: Any) -> tuple[Tensor, Tensor]:
    """W_q and W_k [d, d] of one linear or of two, float64, torch's layout (out x in)."""
    if attn.qkv is None:
        return attn.q_proj.weight.double(), attn.k_proj.weight.double()
    weight = attn.qkv.weight.double()
    d = attn.qkv.in_features
    return weight[:d], weight[d : 2 * d]


def whitening(
    attn: Any,
    moments: Moments,
    *,
    form: Literal["attention", "released"] = "attention",
    floor: float = 1e-6,
    same_query_key: bool = False,
) -> Whitening:
    """W = Σ^(-1/2) for one block.

    Args:
        attn: timm's attention module of the block (fused qkv, layout out x in).
        moments: of the tokens that enter the block.
        form: "attention" is the true logit form, x Wqᵀ Wk x'ᵀ in torch's layout; "released" is
            what the authors' code computes: Wq Wkᵀ, of the tokens averaged over images, divided by
            d (`methods` 1.8, items 1 and 2).
        floor: eigenvalues below floor times the largest are raised to it.
        same_query_key: take the query matrix for the key as well (1.8, item 4).

    Returns:
        The matrix and its diagnostics.
    """
    w_q, w_k = query_key_weights(attn)
    w_k = w_q if same_query_key else w_k
    d = w_q.shape[1]
    if form == "attention":
        g = w_q.T @ w_k
        sigma = g @ moments.second @ g.T
    else:
        mean = (w_q @ w_k.T) @ moments.mean_tokens.T  # [d, T]
        sigma = mean @ mean.T / d
    values, vectors = torch.linalg.eigh((sigma + sigma.T) / 2)
    smallest, largest, double = float(values[0]), float(values[-1]), torch.finfo(torch.float64)
    resolved = max(largest * double.eps * len(values), double.tiny)
    kept = values.clamp_min(floor * largest)
    matrix = vectors @ torch.diag(kept**-0.5) @ vectors.T
    return Whitening(
        matrix=matrix,
        rank=int((values > floor * largest).sum()),
        condition=largest / max(smallest, resolved),
        condition_is_bound=smallest <= resolved,
        row_norm=float(matrix.norm(dim=1).mean()),
    )
