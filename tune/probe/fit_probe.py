"""From features to a head: logistic regression, its strength chosen on held-out rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy

from .logistic_regression import LogisticRegression
from .strength_search import search_strength

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from .logistic_regression import Solution

__all__ = ["Probe", "Rows", "StrengthPoint", "fit_probe", "judged", "search"]


class Rows(NamedTuple):
    """Features and their classes.

    Attributes:
        features: float32 [n, d]
        targets: int64 [n]
    """

    features: Tensor
    targets: Tensor


@dataclass(frozen=True, slots=True)
class StrengthPoint:
    """A strength that was tried.

    Attributes:
        strength: λ of `LogisticRegression`.
        train_loss, val_loss: mean cross-entropy, without the penalty.
        val_top1: a share. None of val if nothing was held out.
    """

    strength: float
    train_loss: float
    val_loss: float | None
    val_top1: float | None


@dataclass(frozen=True, slots=True)
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

    def tried(strength: float) -> StrengthPoint:
        solution = solved[strength] = problem.solve(strength)
        return judged([(solution, val)])

    chosen, points = search(tried)
    solution = solved[chosen.strength]
    return Probe(solution.weight, solution.bias, chosen, points)


def search(
    tried: Callable[[float], StrengthPoint],
) -> tuple[StrengthPoint, tuple[StrengthPoint, ...]]:
    """The point of the best strength, and all that were tried, from strong to weak.

    Args:
        tried: strength → its point.
    """
    points: dict[float, StrengthPoint] = {}

    def loss(strength: float) -> float:
        point = points[strength] = tried(strength)
        assert point.val_loss is not None  # noqa: S101 - of held-out rows
        return point.val_loss

    best = search_strength(loss)
    return points[best], tuple(points[strength] for strength in sorted(points, reverse=True))


def judged(pairs: Sequence[tuple[Solution, Rows]]) -> StrengthPoint:
    """What held-out rows say of a strength, all together.

    Args:
        pairs: solutions of one strength, each with rows that it was not solved on.
    """
    losses, right = [], []
    for solution, rows in pairs:
        logits = torch.addmm(solution.bias, rows.features, solution.weight.T)
        losses.append(cross_entropy(logits.double(), rows.targets, reduction="none"))
        right.append(logits.argmax(dim=1) == rows.targets)
    return StrengthPoint(
        strength=pairs[0][0].strength,
        train_loss=sum(solution.loss for solution, _ in pairs) / len(pairs),
        val_loss=float(torch.cat(losses).mean()),
        val_top1=float(torch.cat(right).double().mean()),
    )
