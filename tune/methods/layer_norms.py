"""Learnable LayerNorms: every norm of a backbone, how far it moved, and how far it shall move.

The frozen backbone stays as it is. Training sees a copy that shares all its tensors but the norms'
own; those are the parameters. Weight (γ) and, where the norm has one, bias (β): an RMS norm has
none. All norms are tuned, also the final one and those inside attention and MLP (`methods` 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from vptkit.formats.backbone_weights import norm_shapes

from .own_copy import own_copy
from .straight_line import moved

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vptkit.formats.backbone_spec import BackboneSpec

__all__ = ["LayerNorms", "Rescale", "Shift", "norm_names", "scaled"]

Rescale = Literal["none", "gamma", "beta", "both", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How far one norm moved in tuning.

    Attributes:
        name: of the norm, as timm has it: `blocks.3.norm1`.
        gamma, beta: L2 norms of the differences; beta is None where the norm has no bias.
    """

    name: str
    gamma: float
    beta: float | None


class LayerNorms(nn.Module):
    """The norms of one adapter, as parameters that its own copy of the backbone reads."""

    def __init__(self, backbone: Any, names: Sequence[str]) -> None:
        """Start from the backbone's values.

        Args:
            backbone: a frozen timm model; neither changed nor copied, but for its norms.
            names: parameters to tune, by timm name.
        """
        super().__init__()
        self.names = tuple(names)
        copied = own_copy(backbone, self.names)
        self._copied = [copied]  # in a list, so that torch does not register it
        self.values = nn.ParameterList(
            copied.get_parameter(name).requires_grad_(requires_grad=True) for name in self.names
        )
        self.start = [_frozen(value) for value in self.values]

    @property
    def backbone(self) -> Any:
        """The copy that computes with these norms."""
        return self._copied[0]

    def learned(self) -> list[Tensor]:
        """Copies of the values as they are now, in the order of `names`."""
        return [_frozen(value) for value in self.values]

    @torch.no_grad()
    def put(self, values: Sequence[Tensor]) -> None:
        """Replace the values, in the order of `names`."""
        for parameter, value in zip(self.values, values, strict=True):
            parameter.copy_(value)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """As the adapter file holds them: `ln.{timm name}` [d]."""
        values = zip(self.names, self.learned(), strict=True)
        return {f"ln.{name}": value.numpy() for name, value in values}

    def shifts(self) -> list[Shift]:
        """How far each norm is from the backbone's, in the order of the forward pass."""
        moved = {
            name: float((value.double() - start.double()).norm())
            for name, value, start in zip(self.names, self.learned(), self.start, strict=True)
        }
        return [
            Shift(
                name=name.removesuffix(".weight"),
                gamma=distance,
                beta=moved.get(f"{name.removesuffix('weight')}bias"),
            )
            for name, distance in moved.items()
            if name.endswith(".weight")
        ]


def norm_names(spec: BackboneSpec, pool: str) -> tuple[str, ...]:
    """Timm names of all norm parameters that the logits hang on, in the order of the forward pass.

    Args:
        spec: of the backbone.
        pool: the adapter's; the norm inside an attention pool counts only if that is used.
    """
    names = norm_shapes(spec)
    return tuple(name for name in names if pool == "map" or not name.startswith("attn_pool."))


def scaled(norms: LayerNorms, learned: Sequence[Tensor], factor: float, what: Rescale) -> None:
    """Set the norms to start + λ (learned − start), for γ, β or both; the others to learned.

    With λ = 1 the learned values come back bit by bit.

    Args:
        norms: changed in place.
        learned: what tuning gave, in the order of `norms.names`.
        factor: λ.
        what: whose differences are multiplied.
    """
    both = (".weight", ".bias")
    ends = {"none": (), "gamma": (".weight",), "beta": (".bias",), "both": both, "all": both}
    norms.put(
        [
            moved(start, end, factor) if name.endswith(ends[what]) else end
            for name, start, end in zip(norms.names, norms.start, learned, strict=True)
        ]
    )


def _frozen(value: Tensor) -> Tensor:
    return value.detach().cpu().clone()
