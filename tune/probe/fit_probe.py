"""From features to a head: logistic regression, its strength chosen on held-out rows.

Each strength is judged behind a temperature of its own. A strong penalty makes logits small, and a
weak one large, whatever their order is worth; judged without, the choice is mostly about their size,
which one number mends afterwards. (Cross-validated on four sets of images, log-loss is 0.00 to 0.06
lower for it, docs/results.md.)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy

from vptkit.scores.temperature import best_factor

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
        temperature: T, fitted to the held-out rows (`vptkit.scores.temperature`).
        train_loss: mean cross-entropy of the solution as it is, without the penalty.
        val_loss: mean cross-entropy of its logits divided by T.
        val_top1: a share. None of val if nothing was held out.
    """

    strength: float
    temperature: float
    train_loss: float
    val_loss: float | None
    val_top1: float | None


@dataclass(frozen=True, slots=True)
class Probe:
    """A head, and how it was found.

    Attributes:
        weight, bias: float32 [C, d] and [C], divided by the chosen temperature.
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
            "temperature": self.chosen.temperature,
            "val_top1": self.chosen.val_top1,
            "val_loss": self.chosen.val_loss,
            "grid": [asdict(point) for point in self.points],
        }


def fit_probe(
    train: Rows, val: Rows, classes: int, weights: Tensor | None = None, *, tempered: bool = True
) -> Probe:
    """Logistic regression on `train`, its strength chosen by log-loss on `val`.

    Args:
        train: its features' memory is taken over and overwritten.
        val: held-out rows.
        classes: C
        weights: of the classes, float32 [C]; None: all 1.
        tempered: divide logits by a temperature, before strengths are compared and in the head.
    """
    rows = None if weights is None else weights.to(train.targets.device)[train.targets]
    problem = LogisticRegression(train.features, train.targets, classes, rows)

    def tried(strength: float) -> StrengthPoint:
        return judged([(problem.solve(strength, exact=False), val)], tempered=tempered)

    chosen, points = search(tried)
    head = problem.solve(chosen.strength).divided_by(chosen.temperature)
    return Probe(*head, chosen, points)


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


def judged(pairs: Sequence[tuple[Solution, Rows]], *, tempered: bool) -> StrengthPoint:
    """What held-out rows say of a strength, all together.

    Args:
        pairs: solutions of one strength, each with rows that it was not solved on.
        tempered: with the temperature that suits these rows, not 1.
    """
    answers = [torch.addmm(one.bias, rows.features, one.weight.T) for one, rows in pairs]
    logits, targets = torch.cat(answers), torch.cat([rows.targets for _, rows in pairs])
    factor = best_factor(logits.cpu().numpy(), targets.cpu().numpy()) if tempered else 1.0
    return StrengthPoint(
        strength=pairs[0][0].strength,
        temperature=1 / factor,
        train_loss=sum(solution.loss for solution, _ in pairs) / len(pairs),
        val_loss=float(cross_entropy(factor * logits.double(), targets)),
        val_top1=float((logits.argmax(dim=1) == targets).double().mean()),
    )
