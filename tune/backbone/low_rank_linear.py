"""A frozen linear with a low-rank product beside it (LoRA: Hu et al., ICLR 2022).

    y = base(x) + (x aᵀ) bᵀ        a [R, in], b [out, R]

The weight is not copied: a step costs two thin products. Rows of a fused linear (queries, keys and
values in one) may have factors of their own; together they are one pair, whose b is zero where the
rows of one meet the ranks of another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Factors", "LowRankLinear", "linear_rows"]


class Factors(NamedTuple):
    """What is learned of some rows of a linear.

    Attributes:
        start, stop: the rows.
        a: [r, in]
        b: [stop - start, r]
    """

    start: int
    stop: int
    a: nn.Parameter
    b: nn.Parameter


class LowRankLinear(nn.Module):
    """Stands in a model where the frozen linear stood."""

    def __init__(self, base: nn.Linear, factors: Sequence[Factors], scale: float) -> None:
        """Nothing is copied.

        Args:
            base: the frozen linear.
            factors: of its rows; none twice.
            scale: by which each product is multiplied.
        """
        super().__init__()
        self.base, self.scale = base, scale
        self.in_features, self.out_features = base.in_features, base.out_features
        self._rows = [(one.start, one.stop) for one in factors]
        self.a = nn.ParameterList(one.a for one in factors)
        self.b = nn.ParameterList(one.b for one in factors)

    def product(self) -> tuple[Tensor, Tensor]:
        """The one pair (a [R, in], b [out, R]), with the scale in b: b a is what is added."""
        columns = [
            F.pad(b, (0, 0, start, self.out_features - stop))
            for (start, stop), b in zip(self._rows, self.b, strict=True)
        ]
        return torch.cat([*self.a]), torch.cat(columns, dim=1) * self.scale

    def forward(self, x: Tensor) -> Tensor:
        """[.., in] → [.., out]."""
        a, b = self.product()
        return self.base(x) + F.linear(F.linear(x, a), b)  # type: ignore[no-any-return]

    def rows(self, x: Tensor, rows: slice) -> Tensor:
        """[.., in] → [.., rows]: some of the outputs."""
        a, b = self.product()
        return linear_rows(self.base, x, rows) + F.linear(F.linear(x, a), b[rows])

    @property
    def weight(self) -> Tensor:
        """The weight that this is equal to, computed anew: for blocks that read it themselves."""
        a, b = self.product()
        return self.base.weight + b @ a

    @property
    def bias(self) -> Tensor | None:
        """The frozen one."""
        return self.base.bias


def linear_rows(linear: Any, x: Tensor, rows: slice) -> Tensor:
    """Some of a linear's outputs.

    Args:
        linear: `nn.Linear` or `LowRankLinear`.
        x: [.., in]
        rows: which outputs.

    Returns:
        [.., rows]
    """
    if isinstance(linear, LowRankLinear):
        return linear.rows(x, rows)
    bias = None if linear.bias is None else linear.bias[rows]
    return F.linear(x, linear.weight[rows], bias)
