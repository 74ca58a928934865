"""Burstiness (BPT, ICCV 2025; `methods` 1.2, 1.3): what prompts meet in each block, measured.

    weights     entries of W_q W_kᵀ [d, d], all heads together, biases left out
    tokens      X [T, d], the tokens that enter the block, class token included
    products    X~ = W_q W_kᵀ Xᵀ, what a prompt is compared with
    whitened    W X~, with W = Σ^(-1/2) and Σ the second moment of X~
    prompts     P~, the prompts of an adapter, as they enter the block

W_q W_kᵀ is the true form of the logit, W_qᵀ W_k in torch's layout. The authors' notebook draws the
other one (`methods` 1.8, item 1); its entries are counted as `weights_released`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from vptkit.errors import AdapterError
from vptkit.tune.backbone.reference import call_block, embed
from vptkit.tune.methods.whitening import query_key_weights, token_moments, whitening

from .heavy_tails import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from vptkit.formats.adapter import Adapter
    from vptkit.tune.methods.whitening import Whitening

__all__ = ["BlockTails", "Quantity", "kurtosis_of_products", "mean_cosine", "measure"]


@dataclass(slots=True)
class Quantity:
    """One distribution and how alike its rows are.

    Attributes:
        tally: of the entries.
        cosine: mean |cos| between two different rows (tokens of one image, prompts of one block);
            None where there are no rows to compare.
        cosine_whitened: of prompts: that of P~ W⁻¹, the prompts that meet whitened data.
    """

    tally: Tally = field(default_factory=Tally)
    cosine: float | None = None
    cosine_whitened: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As the document has it."""
        cosines = {"cosine": self.cosine, "cosine_whitened": self.cosine_whitened}
        return {
            **self.tally.tails().to_json(),
            **{key: value for key, value in cosines.items() if value is not None},
        }


@dataclass(frozen=True, slots=True)
class BlockTails:
    """One block.

    Attributes:
        block: its number.
        sigma: the whitening matrix, and rank and condition of Σ.
        quantities: weights, weights_released, tokens, products, whitened.
        prompts: by the adapter's name, where it has prompts at this block.
    """

    block: int
    sigma: Whitening
    quantities: dict[str, Quantity]
    prompts: dict[str, Quantity]

    def to_json(self) -> dict[str, Any]:
        """As the document has it."""
        return {
            "block": self.block,
            "sigma": self.sigma.to_json(),
            **{name: quantity.to_json() for name, quantity in self.quantities.items()},
            "prompts": {name: quantity.to_json() for name, quantity in self.prompts.items()},
        }


@torch.no_grad()
def measure(
    model: Any,
    batches: Callable[[], Iterable[Tensor]],
    adapters: Mapping[str, Adapter],
    *,
    tap: Literal["pre_ln1", "post_ln1"] = "pre_ln1",
    floor: float = 1e-6,
) -> list[BlockTails]:
    """Measure every block in two passes over the images; no tokens are kept.

    Args:
        model: a frozen timm Vision Transformer in evaluation mode.
        batches: called twice: normalised pixels, float [B, 3, H, W] each.
        adapters: by name, of this backbone, each with prompts.
        tap: X is the block's input, or its first LayerNorm's output.
        floor: of the whitening, see there.

    Returns:
        One entry a block.

    Raises:
        VptkitError: whitening is not defined for this kind of block.
        AdapterError: an adapter has no prompts, or merges tokens.
    """
    moments = token_moments(model, batches(), tap)
    blocks = []
    for i, (block, moment) in enumerate(zip(model.blocks, moments, strict=True)):
        w_q, w_k = query_key_weights(block.attn)
        names = ("weights", "weights_released", "tokens", "products", "whitened")
        found = BlockTails(
            block=i,
            sigma=whitening(block.attn, moment, floor=floor),
            quantities={name: Quantity() for name in names},
            prompts={},
        )
        found.quantities["weights"].tally.add(w_q.T @ w_k)
        found.quantities["weights_released"].tally.add(w_q @ w_k.T)
        for name, adapter in adapters.items():
            _add_prompts(found, name, adapter)
        blocks.append(found)
    _add_tokens(model, batches(), blocks, tap)
    return blocks


@torch.no_grad()
def kurtosis_of_products(
    model: Any,
    batches: Iterable[Tensor],
    matrices: Sequence[Tensor],
    tap: Literal["pre_ln1", "post_ln1"] = "pre_ln1",
) -> list[tuple[float, float]]:
    """Excess kurtosis of X~, before and after whitening, in one pass over some images.

    Args:
        model, tap: of `measure`.
        batches: normalised pixels, float [B, 3, H, W] each.
        matrices: W [d, d] of the first blocks, one each.

    Returns:
        (before, after) for each matrix.
    """
    tallies = [(Tally(), Tally()) for _ in matrices]
    for pixels in batches:
        z = embed(model, pixels)
        for i, (before, after) in enumerate(tallies):
            products = _products(model.blocks[i], z, tap)[1]
            before.add(products)
            after.add(products @ matrices[i].double().T)
            z = call_block(model, i, z)
    return [(before.excess_kurtosis(), after.excess_kurtosis()) for before, after in tallies]


def mean_cosine(rows: Tensor) -> float | None:
    """Mean |cos| between two different rows of [n, d], or of each matrix of [B, n, d].

    None for one row. A row of zeros has the cosine 0 with all others.
    """
    n = rows.shape[-2]
    if n < 2:
        return None
    unit = torch.nn.functional.normalize(rows.double(), dim=-1)
    cosines = (unit @ unit.mT).abs()
    others = cosines.sum(dim=(-1, -2)) - cosines.diagonal(dim1=-1, dim2=-2).sum(dim=-1)
    return float((others / (n * (n - 1))).mean())


def _add_prompts(found: BlockTails, name: str, adapter: Adapter) -> None:
    if adapter.insert == "none":
        raise AdapterError(f"{name}: the adapter has no prompts (method {adapter.method})")
    if adapter.merging is not None:
        raise AdapterError(
            f"{name}: the adapter was tuned with merged tokens, and what is measured here are all "
            "tokens: pass one that was tuned without --merge"
        )
    if adapter.insert == "shallow" and found.block > 0:
        return
    prompts = torch.from_numpy(adapter.prompts(found.block))
    quantity = Quantity(cosine=mean_cosine(prompts))
    quantity.tally.add(prompts)
    # P~ = P Wᵀ, and W is symmetric
    raw = torch.linalg.solve(found.sigma.matrix, prompts.T).T
    quantity.cosine_whitened = mean_cosine(raw)
    found.prompts[name] = quantity


def _add_tokens(model: Any, batches: Iterable[Tensor], blocks: list[BlockTails], tap: str) -> None:
    images = 0
    for pixels in batches:
        z = embed(model, pixels)
        images += len(z)
        for found, block in zip(blocks, model.blocks, strict=True):
            tokens, products = _products(block, z, tap)
            views = {
                "tokens": tokens,
                "products": products,
                "whitened": products @ found.sigma.matrix.T,
            }
            for name, rows in views.items():
                quantity = found.quantities[name]
                quantity.tally.add(rows)
                share = len(z) / images  # of this batch in the running mean
                cosine = mean_cosine(rows) or 0.0
                before = quantity.cosine or 0.0
                quantity.cosine = before + share * (cosine - before)
            z = call_block(model, found.block, z)


def _products(block: Any, z: Tensor, tap: str) -> tuple[Tensor, Tensor]:
    """X and X~ᵀ, float64 [B, T, d], one row a token, of what enters a block."""
    w_q, w_k = query_key_weights(block.attn)
    tokens = (z if tap == "pre_ln1" else block.norm1(z)).double()
    return tokens, tokens @ (w_q.T @ w_k).T
