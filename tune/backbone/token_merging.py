"""Token merging (ToMe: Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023), defined.

In each block but the last, behind the attention's residual sum and before the MLP, the r most
similar pairs of tokens become one token each. With T image tokens, of which the first k are
protected (class, distillation and register tokens), and their sizes s (how many patches each
stands for, 1 at first):

    m_i = mean over heads of K_i, divided by its length       the block's own keys: with their
                                                              bias, behind any norm and rotation;
                                                              of several attentions, all their heads
    A = positions k, k+1, .. that are even, B = those that are odd
    c_a = max over b in B of m_a · m_b, b(a) = that b         of equals the lower position; with
                                                              rotation, rounded to 2⁻¹²
    M = the r tokens a with the largest c_a                   of equals the lower position
    z_b ← (s_b z_b + Σ s_a z_a) / (s_b + Σ s_a)               sums over the a in M with b(a) = b
    s_b ← s_b + Σ s_a

Where attention and MLP stand side by side (blocks of kind "parallel"), there is no place between them:
tokens are merged behind the sum of both.

Order afterwards: protected tokens, then A without M, then B, each in the order that it had. So
protected tokens stay at 0..k-1, and positions of the next block are those of this order. With the
class token alone (k = 1) that is the paper's own code; with more, tokens beside the class token are
neither merged nor merged into.

Rotary positions. A backbone that turns queries and keys of patch i by its angles multiplies each pair
of channels by e^(iθ), so does ours with the mean over the patches of a token, weighted as the token is:

    R_t = Σ_i w_ti R_i,   w = the product of all shares so far (rows of the unit matrix, merged as
                          tokens are); w_ti = 1 / s_t for each patch i in t, else 0

So the logit of two merged tokens is q (mean over pairs of their patches of R_i R_jᵀ) k: the mean of the
logits that their patches would have, were their queries and keys equal, which is what merging takes
them for. That needs no new positions, is the same for every kind of rotation (angles of a grid, learned
for each head and block, of centred coordinates), and is what the paper's author advises
(github.com/facebookresearch/ToMe, issue 29). Means of sines and cosines are shorter than 1 where
patches lie far apart against a wavelength: such a token says less of where it is. A rotation by
the mean position (as long as ever) would claim a place where no patch of the token is; of two
patches half a wavelength apart to a full one it even has the wrong sign, as cos a + cos b =
2 cos((a + b) / 2) cos((a - b) / 2). Protected tokens and prompts are not rotated.

With rotation, equal patches (a white background) are as similar as their distance says, so that many
pairs are equal in theory and differ in the last bit, each machine in its own way. Hence similarities are
rounded, to far more than that and far less than what tells patches apart.

Proportional attention (the paper's eq. 1) adds log s to the attention logits of a token's key, in every
later block: softmax(q kᵀ / √e + log s). Prompts, as tokens or as keys and values, have size 1 and
take no part: they do not count among positions, are not merged and not merged into. Means over
patches (pools "avg", "token+avg", "avg_prompts") weigh tokens by size, and the attention of pool "map"
adds log s, both always.

The matching has no gradient, as in the paper; the means have.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

from vptkit.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Matching",
    "MergedTokens",
    "attention_by_size",
    "has_halves",
    "match_tokens",
    "mean_by_size",
    "merge_rows",
    "silent",
    "size_bias",
]


class Matching(NamedTuple):
    """Which tokens are merged, and into which.

    Attributes:
        kept: positions before, in the order afterwards, int64 [B, T - r].
        merged: positions before of those that vanish, int64 [B, r].
        into: positions afterwards of what each becomes part of, int64 [B, r].
    """

    kept: Tensor
    merged: Tensor
    into: Tensor


class MergedTokens(NamedTuple):
    """What the image's tokens are made of, behind some merging.

    Attributes:
        size: how many patches each stands for, float [B, T].
        parts: w, which share of each token each of the first T_0 tokens is, float [B, T, T_0]; None
            while nothing is merged, or where nobody asks (backbones without rotation).
    """

    size: Tensor
    parts: Tensor | None = None

    def with_parts(self) -> Tensor:
        """`parts`; the unit matrix while nothing is merged."""
        if self.parts is not None:
            return self.parts
        exact = torch.promote_types(self.size.dtype, torch.float32)
        unit = torch.eye(self.size.shape[1], dtype=exact, device=self.size.device)
        return unit.expand(len(self.size), -1, -1)


@torch.no_grad()
def match_tokens(keys: Tensor, protected: int, r: int, steps: int = 0) -> Matching:
    """The r pairs that are merged.

    Args:
        keys: of image tokens, float [B, h, T, e], of as many heads as keys have.
        protected: k, how many tokens at the front are not merged.
        r: at most (T - k) // 2.
        steps: similarities are rounded to multiples of 1 / steps; 0: they are not.
    """
    exact = torch.promote_types(keys.dtype, torch.float32)
    with torch.autocast(keys.device.type, enabled=False):
        metric = F.normalize(keys.to(exact).mean(dim=1), dim=-1)  # [B, T, e]
        first = protected + protected % 2  # the first even position that may be merged
        b_from = protected + 1 - protected % 2
        a, b = metric[:, first::2], metric[:, b_from::2]
        similar = a @ b.transpose(1, 2)
        if steps:
            similar = (similar * steps).round()
        nearest, index = similar.max(dim=-1)  # [B, A]; of equals the first
    order = nearest.argsort(dim=-1, descending=True, stable=True)
    chosen, rest = order[:, :r], order[:, r:].sort(dim=-1).values
    batch, tokens = len(keys), keys.shape[2]
    others = torch.arange(b_from, tokens, 2, device=keys.device).expand(batch, -1)
    front = torch.arange(protected, device=keys.device).expand(batch, -1)
    kept = torch.cat([front, first + 2 * rest, others], dim=1)
    into = index.gather(1, chosen) + (kept.shape[1] - others.shape[1])
    return Matching(kept, first + 2 * chosen, into)


def merge_rows(z: Tensor, size: Tensor, matching: Matching) -> tuple[Tensor, Tensor]:
    """Tokens and sizes behind the merging: means weighted by size.

    Args:
        z: image tokens, [B, T, d].
        size: of each, float [B, T].
        matching: of these tokens.

    Returns:
        tokens [B, T - r, d] and sizes [B, T - r]
    """
    with torch.autocast(z.device.type, enabled=False):
        shares, total = _shares(size, matching)
        return shares.to(z.dtype) @ z, total


@torch.no_grad()
def _shares(size: Tensor, matching: Matching) -> tuple[Tensor, Tensor]:
    """What part of each token afterwards each token before is, [B, T - r, T], and sizes afterwards.

    A product with this matrix takes half the time of gathering and scattering rows, in training.
    """
    kept, merged, into = matching
    total = size.gather(1, kept).scatter_add(1, into, size.gather(1, merged))
    shares = size.new_zeros(*kept.shape, size.shape[1])
    image = torch.arange(len(size), device=size.device)[:, None]
    row = torch.arange(kept.shape[1], device=size.device)[None]
    shares[image, row, kept] = size.gather(1, kept) / total
    shares[image, into, merged] = size.gather(1, merged) / total.gather(1, into)
    return shares, total


def size_bias(size: Tensor) -> Tensor:
    """Log(size) of each key, as it is added to attention logits: [B, T] → [B, 1, 1, T]."""
    return size.log()[:, None, None]


def mean_by_size(rows: Tensor, size: Tensor) -> Tensor:
    """Σ s z / Σ s over tokens: [B, T, d], [B, T] → [B, d]."""
    weight = size[..., None].to(rows.dtype)
    return (rows * weight).sum(dim=1) / weight.sum(dim=1)


@contextmanager
def attention_by_size(block: Any, bias: Tensor | None) -> Iterator[list[Tensor]]:
    """A block whose attentions add a bias to their logits, while the context lasts.

    Timm's attentions meet in `F.scaled_dot_product_attention`.

    Args:
        block: of timm.
        bias: float, of a shape that its logits [B, h, T, T] take; None for none.

    Yields:
        a list, which gets the keys [B, h, T, e] of each attention as it is about to use them.

    Raises:
        BackboneError: the block attends in another way.
    """
    plain, found = F.scaled_dot_product_attention, list[Tensor]()

    def biased(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Any = None, **rest: Any) -> Tensor:
        found.append(k)
        if bias is not None:
            added = bias.to(q.dtype)
            attn_mask = added if attn_mask is None else attn_mask + added
        return plain(q, k, v, attn_mask=attn_mask, **rest)

    with ExitStack() as stack:
        for part in (part for part in block.modules() if hasattr(part, "fused_attn")):
            stack.enter_context(patch.object(part, "fused_attn", new=True))
        stack.enter_context(patch.object(F, "scaled_dot_product_attention", biased))
        yield found
    if len(found) != len(getattr(block, "attns", [block])):
        raise BackboneError(
            f"token merging needs the keys of each attention, {type(block).__name__} shows {len(found)}"
        )


def has_halves(block: Any) -> bool:
    """Whether a block adds what its attention finds before its MLP sees the tokens."""
    return hasattr(block, "mlp") or hasattr(block, "ffns")


@contextmanager
def silent(block: Any, branch: str) -> Iterator[None]:
    """A block whose "attn" or "mlp" adds nothing to the tokens, while the context lasts.

    Behind a branch there may be a norm (blocks of kind "post"), whose shift is silent too; of several
    branches (`ParallelThingsBlock`) all are.
    """
    behind = {"attn": "norm1", "mlp": "norm2"}[branch]
    several = getattr(block, {"attn": "attns", "mlp": "ffns"}[branch], None)
    modules = (getattr(block, branch), getattr(block, behind)) if several is None else several
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(patch.object(module, "forward", _nothing))
        yield


def _nothing(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.zeros_like(x)
