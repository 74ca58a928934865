"""From features to a head with a logistic regression for each label; as `fit_probe` for one label an image.

One strength for all labels, chosen by log-loss on rows that are held out, each strength behind a
temperature of its own. What is compared is the sum over labels, nats an image, as for single labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from vptkit.scores.multilabel import mean_average_precision
from vptkit.scores.temperature import best_factor

from .fit_probe import FIXED_STRENGTH, Probe, Rows, StrengthPoint, held_out
from .label_regression import LabelRegression
from .strength_search import search_strength

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from .logistic_regression import Solution

__all__ = ["fit_label_probe"]


def fit_label_probe(
    train: Rows,
    *,
    val: Rows | None = None,
    parts: Tensor | None = None,
    tempered: bool = True,
) -> Probe:
    """A logistic regression for each label on `train`.

    Args:
        train, val, parts, tempered: of `fit_probe`; targets are 0 or 1, float32 [n, C].

    Returns:
        the head; `val_top1` of its points is the mean average precision, and losses are means over labels.
    """
    count = 0 if parts is None else int(parts.max()) + 1
    without, held = [], []
    for part in range(count):
        assert parts is not None  # noqa: S101 - else there is none
        chosen = (parts != part).repeat(len(train.targets) // len(parts))
        without.append(LabelRegression(train.features[chosen], train.targets[chosen]))
        held.append(held_out(train, parts, part))
    whole = LabelRegression(train.features, train.targets)
    asked = [*zip(without, held, strict=True), *([] if val is None else [(whole, val)])]
    if not asked:
        solution = whole.solve(FIXED_STRENGTH)
        point = StrengthPoint(FIXED_STRENGTH, 1.0, solution.loss, None, None)
        return Probe(solution.weight, solution.bias, point, (point,))
    points: dict[float, StrengthPoint] = {}

    def loss(strength: float) -> float:
        pairs = [(problem.solve(strength, exact=False), judge) for problem, judge in asked]
        point = points[strength] = _held_out_point(pairs, tempered=tempered)
        assert point.val_loss is not None  # noqa: S101 - of held-out rows
        return point.val_loss * train.targets.shape[1]

    best = points[search_strength(loss)]
    head, *others = (
        problem.solve(best.strength).divided_by(best.temperature) for problem in (whole, *without)
    )
    tried = tuple(points[strength] for strength in sorted(points, reverse=True))
    return Probe(*head, best, tried, tuple(others))


def _held_out_point(pairs: Sequence[tuple[Solution, Rows]], *, tempered: bool) -> StrengthPoint:
    """What held-out rows say of a strength, all together; as of `fit_probe`."""
    answers = [torch.addmm(one.bias, rows.features, one.weight.T) for one, rows in pairs]
    logits, targets = torch.cat(answers), torch.cat([rows.targets for _, rows in pairs])
    values, truth = logits.cpu().numpy(), targets.cpu().numpy()
    factor = best_factor(values, truth) if tempered else 1.0
    loss = binary_cross_entropy_with_logits(factor * logits.double(), targets.double())
    return StrengthPoint(
        strength=pairs[0][0].strength,
        temperature=1 / factor,
        train_loss=sum(solution.loss for solution, _ in pairs) / len(pairs),
        val_loss=float(loss),
        val_top1=mean_average_precision(values, truth),
    )
