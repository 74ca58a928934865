"""From features to a head: logistic regression, its strength chosen on held-out rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy

from .logistic_regression import LogisticRegression
from .strength_search import search_strength

if TYPE_CHECKING:
    from torch import Tensor

    from .logistic_regression import Solution

__all__ = ["Probe", "Rows", "StrengthPoint", "fit_probe"]


class Rows(NamedTuple):
    """Features and their classes.

    Attributes:
        features: float32 [n, d]
        targets: int64 [n]
    """

    features: Tensor
    targets: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class StrengthPoint:
    """A strength that was tried.

    Attributes:
        strength: λ of `LogisticRegression`.
        train_loss, val_loss: mean cross-entropy, without the penalty.
        val_top1: a share.
    """

    strength: float
    train_loss: float
    val_loss: float
    val_top1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A head, and how it was found.

    Attributes:
        weight, bias: float32 [C, d] and [C].
        chosen: the point of its strength.
        points: all that were tried, from strong to weak.
    """

    weight: Tensor
    bias: Tensor
    chosen: StrengthPoint
    points: tuple[StrengthPoint, ...]

    def to_json(self) -> dict[str, Any]:
        """For the adapter's `train` record, the metrics and `--json`."""
        return {
            "strength": self.chosen.strength,
            "val_top1": self.chosen.val_top1,
            "val_loss": self.chosen.val_loss,
            "grid": [asdict(point) for point in self.points],
        }


def fit_probe(train: Rows, val: Rows, classes: int, weights: Tensor | None = None) -> Probe:
    """Logistic regression on `train`, its strength chosen by log-loss on `val`.

    Args:
        train: its features' memory is taken over and overwritten.
        val: held-out rows.
        classes: C
        weights: of the classes, float32 [C]; None: all 1.
    """
    rows = None if weights is None else weights.to(train.targets.device)[train.targets]
    problem = LogisticRegression(train.features, train.targets, classes, rows)
    solved: dict[float, Solution] = {}
    points: dict[float, StrengthPoint] = {}

    def loss(strength: float) -> float:
        solution = solved[strength] = problem.solve(strength)
        points[strength] = _judged(solution, val)
        return points[strength].val_loss

    best = search_strength(loss)
    return Probe(
        weight=solved[best].weight,
        bias=solved[best].bias,
        chosen=points[best],
        points=tuple(points[strength] for strength in sorted(points, reverse=True)),
    )


def _judged(solution: Solution, val: Rows) -> StrengthPoint:
    logits = torch.addmm(solution.bias, val.features, solution.weight.T)
    return StrengthPoint(
        strength=solution.strength,
        train_loss=solution.loss,
        val_loss=float(cross_entropy(logits.double(), val.targets)),
        val_top1=float((logits.argmax(dim=1) == val.targets).double().mean()),
    )
