"""Learnable prompts: VPT's free rows and the three forms of BPT.

    vpt                P                                        P learned, uniform ±√(6/(3·patch²+d))
    bpt bilinear       A Bᵀ,  A [m, p], B [d, p]                A and B learned
    bpt fwhiten        P Wᵀ,  W the block's whitening matrix    P learned, W frozen
    bpt twhiten        P Wᵀ                                     P and W learned

(VPT: Jia et al., ECCV 2022. BPT: Wang et al., ICCV 2025; `methods` 1.4, 1.5, 4.2.) Every form is
"a bᵀ" or a single matrix; no norm, no activation, no bias.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from vptkit.errors import VptkitError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["PromptConfig", "Prompts", "needs_whitening"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptConfig:
    """What is learned in place of prompts.

    Attributes:
        form: see the module.
        length: m.
        rank: p, of the bilinear form.
        b_init: B starts at "random" (Xavier) or at p columns of the "whiten"ing matrix.
        tune_b_last: deep bilinear: B is learned in this many last blocks only.
        released: draw other columns of W for each row, as the authors' code does (1.8, item 3).
        dropout: on the prompts, while training (VPT-deep: 0.1).
    """

    form: Literal["free", "bilinear", "fwhiten", "twhiten"]
    length: int
    rank: int = 50
    b_init: Literal["random", "whiten"] = "random"
    tune_b_last: int = 4
    released: bool = False
    dropout: float = 0.0


def needs_whitening(config: PromptConfig) -> bool:
    """Whether whitening matrices must be computed first."""
    return config.form in ("fwhiten", "twhiten") or (
        config.form == "bilinear" and config.b_init == "whiten"
    )


class Prompts(nn.Module):
    """The prompts of one adapter: call it for the list of [m, d] matrices, one a site."""

    def __init__(
        self,
        config: PromptConfig,
        *,
        width: int,
        patch: tuple[int, int],
        sites: int,
        whitening: Sequence[Tensor],
        generator: torch.Generator,
    ) -> None:
        """Draw the initial values.

        Args:
            config: which form.
            width: d.
            patch: patch size of the backbone, for VPT's bound.
            sites: L if deep, 1 if shallow.
            whitening: W of each site [d, d], if the form needs it.
            generator: source of all random numbers.

        Raises:
            VptkitError: the rank does not fit.
        """
        super().__init__()
        self.config = config
        m, p = config.length, config.rank
        if config.form == "bilinear" and config.b_init == "whiten" and p > width:
            raise VptkitError(f"rank {p} is more than the backbone's width {width}")
        self.a = nn.ParameterList()
        self.b = nn.ParameterList()

        def normal(rows: int, columns: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=generator) * 0.02)

        columns = torch.randperm(width, generator=generator)[:p]
        for i in range(sites):
            if config.form == "free":
                bound = math.sqrt(6.0 / (3 * patch[0] * patch[1] + width))
                draw = torch.rand(m, width, generator=generator)
                self.a.append(nn.Parameter((draw * 2 - 1) * bound))
            elif config.form == "bilinear":
                self.a.append(normal(m, p))
                b = self._factor(width, whitening[i] if whitening else None, columns, generator)
                learned = sites == 1 or i >= sites - config.tune_b_last
                self.b.append(nn.Parameter(b, requires_grad=learned))
            else:
                self.a.append(normal(m, width))
                learned = config.form == "twhiten"
                self.b.append(nn.Parameter(whitening[i].float().clone(), requires_grad=learned))

    def _factor(
        self, width: int, w: Tensor | None, columns: Tensor, generator: torch.Generator
    ) -> Tensor:
        rank = self.config.rank
        if self.config.b_init == "random" or w is None:
            bound = math.sqrt(6.0 / (rank + width))  # Xavier-uniform
            return (torch.rand(width, rank, generator=generator) * 2 - 1) * bound
        if self.config.released:
            order = torch.rand(width, width, generator=generator).argsort(dim=1)[:, :rank]
            return w.float().gather(1, order)
        return w.float()[:, columns].clone()

    def forward(self) -> list[Tensor]:
        """[m, d] for each site; with dropout while training."""
        products = [a @ b.T for a, b in zip(self.a, self.b, strict=True)] if self.b else [*self.a]
        if self.training and self.config.dropout:
            return [nn.functional.dropout(p, self.config.dropout) for p in products]
        return products

    @torch.no_grad()
    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """As the adapter file holds them: bilinear factors apart, whitened prompts as products."""
        named: dict[str, Tensor] = {}
        for i, a in enumerate(self.a):
            if self.config.form == "free":
                named[f"prompt.{i}"] = a
            elif self.config.form == "bilinear":
                named[f"prompt.{i}.a"], named[f"prompt.{i}.b"] = a, self.b[i]
            else:
                named[f"prompt.{i}"] = (a.double() @ self.b[i].double().T).float()
        return {name: value.detach().cpu().numpy().copy() for name, value in named.items()}
