"""After a training: how far along the line from its start to its end the model shall stand.

Only the validation split decides. Where the data has test and ood splits, both are measured along
the line, to be looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from vptkit.tune.methods.straight_line import GRID, best_point, curve_of, judged_point, on_line
from vptkit.tune.training.loop import split_logits, top1_and_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor

    from vptkit.progress import Progress
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.data.dataset import DataSet
    from vptkit.tune.methods.straight_line import LinePoint
    from vptkit.tune.methods.tuned_model import Tuned

__all__ = ["Line", "choose_line", "outside_row", "outside_top1"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The point that val chose, and the others.

    Attributes:
        chosen: the model holds its parameters.
        points: each α that was tried and had finite logits, in order; one alone where the training
            ended at its start.
        outside: α → accuracy on (test, ood), where the data has both.
    """

    chosen: LinePoint
    points: Sequence[LinePoint]
    outside: Mapping[float, tuple[float, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For the adapter's `train` record and `--json`."""
        rows = [{**row, **outside_row(self.outside, row["alpha"])} for row in curve_of(self.points)]
        return {"alpha": self.chosen.alpha, "curve": rows}


def choose_line(
    tuned: Tuned,
    start: Mapping[str, Tensor],
    sets: Mapping[str, DataSet],
    config: TuneConfig,
    progress: Progress,
) -> Line:
    """Choose α and leave the model with it; all of torchrun's processes choose the same.

    Args:
        tuned: with the parameters of the line's end.
        start: its `state_dict` before the first epoch.
        sets: val decides; test and ood are only reported.
        config: `batch_to_ask`.
        progress: told about each α.
    """
    end = {name: value.clone() for name, value in tuned.state_dict().items()}
    still = all(torch.equal(start[name].cpu(), value.cpu()) for name, value in end.items())

    def measured(alpha: float) -> LinePoint | None:
        tuned.load_state_dict(on_line(start, end, alpha))
        logits = split_logits(tuned, sets["val"], config.batch_to_ask)
        point = judged_point(alpha, logits, sets["val"].split.targets)
        told = "not finite" if point is None else f"val {point.top1:.3f} loss {point.loss:.3f}"
        progress.update(0, f"alpha {alpha:g}: {told}")
        return point

    def outside(alpha: float, split: str) -> float:
        tuned.load_state_dict(on_line(start, end, alpha))
        top1 = top1_and_loss(tuned, sets[split], config.batch_to_ask)[0]
        progress.update(0, f"alpha {alpha:g}: {split} {top1:.3f}")
        return top1

    tried = (measured(alpha) for alpha in (GRID[:1] if still else GRID))
    points = [point for point in tried if point is not None]
    chosen = best_point(points)
    found = outside_top1(outside, (point.alpha for point in points), sets)
    tuned.load_state_dict(on_line(start, end, chosen.alpha))
    return Line(chosen=chosen, points=points, outside=found)


def outside_top1(
    measured: Callable[[float, str], float], factors: Iterable[float], sets: Mapping[str, DataSet]
) -> dict[float, tuple[float, float]]:
    """Accuracy on (test, ood) at each factor, for the record; none where one of them is not there.

    Args:
        measured: (factor, split) → top-1 share.
        factors: λ or α; each is measured once, from the smallest on.
        sets: of the run.
    """
    if not {"test", "ood"} <= set(sets):
        return {}
    return {
        factor: (measured(factor, "test"), measured(factor, "ood"))
        for factor in sorted(set(factors))
    }


def outside_row(outside: Mapping[float, tuple[float, float]], factor: float) -> dict[str, float]:
    """What a curve's row says of test and ood: nothing where they were not measured."""
    if factor not in outside:
        return {}
    test, ood = outside[factor]
    return {"test_top1": test, "ood_top1": ood}
