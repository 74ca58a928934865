"""LoRA: low-rank changes of a backbone's linears (Hu et al., ICLR 2022).

    W + s b a,   a [r, in], b [out, r]

a is drawn as torch draws a linear's weight (Kaiming), b begins at zero: before the first step the
model is the backbone, bit by bit. The frozen backbone stays as it is; training sees a copy that
shares all its tensors, whose linears have a product beside them.

s = alpha / r. AdamW moves every number of b by about its rate, and r of them add up, all in the
gradient's direction: with 1 / r a step changes W by as much at any rank. (rsLoRA's 1 / √r is
derived for plain gradient descent; with AdamW a step would grow with √r.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vptkit.errors import VptkitError
from vptkit.formats.backbone_weights import attention_branches, mlp_branches
from vptkit.tune.backbone.low_rank_linear import Factors, LowRankLinear

from .own_copy import own_copy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vptkit.formats.backbone_spec import BackboneSpec

__all__ = ["FIRST_FACTORS", "Lora", "Site", "lora_sites"]

FIRST_FACTORS = "lora.a."  # how a model that has `Lora` as `lora` calls them


@dataclass(frozen=True, slots=True)
class Site:
    """Some rows of a linear that are changed.

    Attributes:
        module: the linear's timm name, as blocks.3.attn.qkv.
        start, stop: its rows.
    """

    module: str
    start: int
    stop: int


def lora_sites(spec: BackboneSpec, targets: Sequence[str]) -> tuple[Site, ...]:
    """Where the factors stand, in the order of the forward pass: one pair a site.

    Args:
        spec: of the backbone.
        targets: of `vptkit.tune.lora_targets`: "proj" is behind attention, "fc1" leads into the MLP (both linears of
            a SwiGLU), "fc2" out of it. Queries, keys and values have factors of their own, also
            where one linear makes all three.
    """
    found = [
        site
        for i in range(spec.depth)
        for name, site in (_parallel(spec, i) if spec.block == "parallel" else _block(spec, i))
        if name in targets
    ]
    return tuple(found)


def _block(spec: BackboneSpec, i: int) -> Iterator[tuple[str, Site]]:
    d, kv = spec.width, spec.key_heads(i) * spec.head_width
    for branch in attention_branches(spec, i):
        rows = {"q": (0, d), "k": (d, d + kv), "v": (d + kv, d + 2 * kv)}
        for name, (start, stop) in rows.items():
            if spec.qkv == "separate":
                yield name, Site(f"{branch.module}.{name}_proj", 0, stop - start)
            else:
                yield name, Site(f"{branch.module}.qkv", start, stop)
        yield "proj", Site(f"{branch.module}.proj", 0, d)
    hidden = 2 * spec.mlp_width if spec.mlp == "glu" else spec.mlp_width
    for branch in mlp_branches(spec, i):
        for name in ("fc1_g", "fc1_x") if spec.mlp == "swiglu" else ("fc1",):
            yield "fc1", Site(f"{branch.module}.{name}", 0, hidden)
        yield "fc2", Site(f"{branch.module}.fc2", 0, d)


def _parallel(spec: BackboneSpec, i: int) -> Iterator[tuple[str, Site]]:
    """ViT-22B: one linear makes the MLP's hidden values, queries, keys and values."""
    d, hidden, name = spec.width, spec.mlp_width, f"blocks.{i}"
    for n, part in enumerate("qkv"):
        yield part, Site(f"{name}.in_proj", hidden + n * d, hidden + (n + 1) * d)
    yield "proj", Site(f"{name}.attn_out_proj", 0, d)
    yield "fc1", Site(f"{name}.in_proj", 0, hidden)
    yield "fc2", Site(f"{name}.mlp_out_proj", 0, d)


class Lora(nn.Module):
    """The factors of one adapter, as parameters that its own copy of the backbone reads."""

    def __init__(
        self,
        backbone: Any,
        sites: Sequence[Site],
        *,
        rank: int,
        alpha: float,
        generator: torch.Generator,
    ) -> None:
        """Draw the initial values.

        Args:
            backbone: a timm model; neither changed nor copied.
            sites: of `lora_sites`.
            rank: r, of each site.
            alpha: the products are multiplied by alpha / r.
            generator: source of all random numbers.

        Raises:
            VptkitError: the rank is more than a linear can have.
        """
        super().__init__()
        copied = own_copy(backbone)
        self._copied = [copied]  # in a list, so that torch does not register it
        self.a = nn.ParameterList()
        self.b = nn.ParameterList()
        by_module: dict[str, list[Factors]] = {}
        for site in sites:
            width = copied.get_submodule(site.module).in_features
            _require_rank(rank, site, width)
            bound = 1 / math.sqrt(width)
            draw = torch.rand(rank, width, generator=generator)
            self.a.append(nn.Parameter((draw * 2 - 1) * bound))
            self.b.append(nn.Parameter(torch.zeros(site.stop - site.start, rank)))
            pair = Factors(site.start, site.stop, self.a[-1], self.b[-1])
            by_module.setdefault(site.module, []).append(pair)
        self._linears = {
            module: LowRankLinear(copied.get_submodule(module), factors, alpha / rank)
            for module, factors in by_module.items()
        }
        for module, linear in self._linears.items():
            parent, _, name = module.rpartition(".")
            setattr(copied.get_submodule(parent), name, linear)

    @property
    def backbone(self) -> Any:
        """The copy that computes with these factors."""
        return self._copied[0]

    @torch.no_grad()
    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """As the adapter file holds them, scale and all: `delta.{module}.a` [R, in], `.b` [out, R].

        R is r for each part of a fused linear that is changed.
        """
        named: dict[str, Tensor] = {}
        for module, linear in self._linears.items():
            named[f"delta.{module}.a"], named[f"delta.{module}.b"] = linear.product()
        return {name: value.detach().cpu().numpy().copy() for name, value in named.items()}


def _require_rank(rank: int, site: Site, width: int) -> None:
    most = min(width, site.stop - site.start)
    if rank > most:
        raise VptkitError(
            f"lora_rank is {rank}, but what it changes of {site.module} has rank {most}: pass "
            f"--lora-rank {most} or less"
        )
