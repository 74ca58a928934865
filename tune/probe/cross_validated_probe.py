"""The probe of few rows: its strength by cross-validation (and val, if there is one), then all at it.

On 50 validation images a strength ten times too large may have the lowest log-loss; the training
images, held out in turns, say more than these alone.

Every view of an image is in the image's part: a mirrored twin of what is held out would give it away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .fit_probe import Probe, Rows, StrengthPoint, judged, search
from .logistic_regression import LogisticRegression
from .nearest_neighbours import knn_top1

if TYPE_CHECKING:
    from torch import Tensor


__all__ = ["CrossValidatedProbe", "cross_validated_knn", "fit_probe_by_parts"]

# Where nothing can be held out. With one image a class of four sets of images (ViT-Ti at 112 px, three
# seeds) val would choose 10 to 1e-5; top-1 differs by less than 2 points between these.
FIXED_STRENGTH = 10**-1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossValidatedProbe:
    """A probe on all rows, and those that say how good it is.

    Attributes:
        probe: solved on all rows; what its points say of val is of the held-out rows of all parts.
        without: the head without each part, (weight, bias), at the chosen strength and temperature.
    """

    probe: Probe
    without: tuple[tuple[Tensor, Tensor], ...]


def fit_probe_by_parts(
    rows: Rows,
    parts: Tensor,
    classes: int,
    weights: Tensor | None = None,
    *,
    val: Rows | None = None,
    tempered: bool = True,
) -> CrossValidatedProbe:
    """Logistic regression on all rows, its strength chosen by log-loss on held-out rows.

    Args:
        rows: [V n], view after view, the plain ones first; the memory of the features is taken over
            and overwritten, and each part takes a copy of its own.
        parts: of each image, int64 [n]; negative: never held out. If all are, the strength is fixed.
        classes: C
        weights: of the classes, float32 [C]; None: all 1.
        val: rows that are no part of `rows`, and judge as well.
        tempered: of `fit_probe`.
    """
    count = int(parts.max()) + 1
    weighed = None if weights is None else weights.to(rows.targets.device)[rows.targets]
    if not count and val is None:
        only = LogisticRegression(rows.features, rows.targets, classes, weighed)
        solution = only.solve(FIXED_STRENGTH)
        point = StrengthPoint(FIXED_STRENGTH, 1.0, solution.loss, None, None)
        probe = Probe(solution.weight, solution.bias, point, (point,))
        return CrossValidatedProbe(probe=probe, without=())
    held = [held_out(rows, parts, part) for part in range(count)]
    problems = [_without(rows, parts, part, classes, weighed) for part in range(count)]
    whole = LogisticRegression(rows.features, rows.targets, classes, weighed)
    asked = [*zip(problems, held, strict=True), *([] if val is None else [(whole, val)])]

    def tried(strength: float) -> StrengthPoint:
        pairs = [(problem.solve(strength, exact=False), judge) for problem, judge in asked]
        return judged(pairs, tempered=tempered)

    chosen, points = search(tried)
    heads = [problem.solve(chosen.strength) for problem in problems]
    found = [head.divided_by(chosen.temperature) for head in heads]
    head = whole.solve(chosen.strength).divided_by(chosen.temperature)
    return CrossValidatedProbe(probe=Probe(*head, chosen, points), without=tuple(found))


def held_out(rows: Rows, parts: Tensor, part: int) -> Rows:
    """The plain rows of a part: a copy."""
    chosen = (parts == part).nonzero()[:, 0]  # the plain view comes first
    return Rows(rows.features[chosen], rows.targets[chosen])


def cross_validated_knn(plain: Rows, parts: Tensor, classes: int, k: int) -> float | None:
    """Share of the held-out rows whose class their neighbours among the others name.

    Args:
        plain: rows without augmentation, [n].
        parts: of each, int64 [n]; negative: never held out. None comes back if all are.
        classes, k: of `knn_top1`.
    """
    right, count = 0.0, int((parts >= 0).sum())
    for part in range(int(parts.max()) + 1):
        others = parts != part
        queries = held_out(plain, parts, part)
        known = Rows(plain.features[others], plain.targets[others])
        right += knn_top1(known, queries, classes, k) * len(queries.targets)
    return right / count if count else None


def _without(
    rows: Rows, parts: Tensor, part: int, classes: int, weighed: Tensor | None
) -> LogisticRegression:
    """The problem of all views of all images but a part's."""
    chosen = (parts != part).repeat(len(rows.targets) // len(parts))
    kept = None if weighed is None else weighed[chosen]
    return LogisticRegression(rows.features[chosen], rows.targets[chosen], classes, kept)
