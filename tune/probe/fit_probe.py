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

__all__ = ["Probe", "Rows", "StrengthPoint", "fit_probe", "held_out", "search"]

# Where nothing can be held out. With one image a class of four sets of images (ViT-Ti at 112 px, three
# seeds) val would choose 10 to 1e-5; top-1 differs by less than 2 points between these.
FIXED_STRENGTH = 10**-1.5


class Rows(NamedTuple):
    """Features and their classes.

    Attributes:
        features: float32 [n, d]
        targets: int64 [n]; with several labels an image 0 or 1, float32 [n, C].
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
        without: the head without each part of the images, (weight, bias), at the same strength and
            temperature.
    """

    weight: Tensor
    bias: Tensor
    chosen: StrengthPoint
    points: tuple[StrengthPoint, ...]
    without: tuple[tuple[Tensor, Tensor], ...] = ()

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
    train: Rows,
    classes: int,
    *,
    val: Rows | None = None,
    parts: Tensor | None = None,
    weights: Tensor | None = None,
    tempered: bool = True,
) -> Probe:
    """Logistic regression on `train`, its strength chosen by log-loss on rows that are held out.

    On 50 validation images a strength ten times too large may have the lowest log-loss; the training
    images, held out in turns, say more than these alone.

    Args:
        train: [V n], view after view, the plain ones first; the memory of the features is taken over
            and overwritten, and each part takes a copy of its own.
        classes: C
        val: rows that are no part of `train`, and judge.
        parts: of each image, int64 [n]; each part judges the solution without it. Every view of an
            image is in its part: a mirrored twin of what is held out would give it away. Negative:
            never held out. With neither parts nor `val` the strength is fixed.
        weights: of the classes, float32 [C]; None: all 1.
        tempered: divide logits by a temperature, before strengths are compared and in the head.
    """
    weighed = None if weights is None else weights.to(train.targets.device)[train.targets]
    count = 0 if parts is None else int(parts.max()) + 1
    without, held = [], []
    for part in range(count):
        assert parts is not None  # noqa: S101 - else there is none
        without.append(_without(train, parts, part, classes, weighed))
        held.append(held_out(train, parts, part))
    whole = LogisticRegression(train.features, train.targets, classes, weighed)
    asked = [*zip(without, held, strict=True), *([] if val is None else [(whole, val)])]
    if not asked:
        solution = whole.solve(FIXED_STRENGTH)
        point = StrengthPoint(FIXED_STRENGTH, 1.0, solution.loss, None, None)
        return Probe(solution.weight, solution.bias, point, (point,))

    def tried(strength: float) -> StrengthPoint:
        pairs = [(problem.solve(strength, exact=False), judge) for problem, judge in asked]
        return _held_out_point(pairs, tempered=tempered)

    chosen, points = search(tried)
    head, *others = (
        problem.solve(chosen.strength).divided_by(chosen.temperature)
        for problem in (whole, *without)
    )
    return Probe(*head, chosen, points, tuple(others))


def held_out(rows: Rows, parts: Tensor, part: int) -> Rows:
    """The plain rows of a part: a copy."""
    chosen = (parts == part).nonzero()[:, 0]  # the plain view comes first
    return Rows(rows.features[chosen], rows.targets[chosen])


def _without(
    rows: Rows, parts: Tensor, part: int, classes: int, weighed: Tensor | None
) -> LogisticRegression:
    """The problem of all views of all images but a part's."""
    chosen = (parts != part).repeat(len(rows.targets) // len(parts))
    kept = None if weighed is None else weighed[chosen]
    return LogisticRegression(rows.features[chosen], rows.targets[chosen], classes, kept)


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


def _held_out_point(pairs: Sequence[tuple[Solution, Rows]], *, tempered: bool) -> StrengthPoint:
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
