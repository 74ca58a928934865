"""After a training of LayerNorms: λ is chosen, and how far the norms moved is told.

Only the validation split decides. Where the data has test and ood splits, both are measured along
the grid of λ, to be looked at: the paper's claim is that λ above 1 helps out of distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vptkit.tune.methods.lambda_search import GRID, best_lambda, search_lambda
from vptkit.tune.methods.layer_norms import scaled
from vptkit.tune.phases.choose_line import outside_row, outside_top1
from vptkit.tune.training.loop import answers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vptkit.progress import Progress
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.data.dataset import DataSet
    from vptkit.tune.methods.lambda_search import LambdaPoint
    from vptkit.tune.methods.layer_norms import LayerNorms, Shift
    from vptkit.tune.methods.tuned_model import Tuned

__all__ = ["Rescaled", "choose_rescale", "shift_record"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescaled:
    """Tuned LayerNorms, how far they moved, and the λ that val chose.

    Attributes:
        shifts: of each norm as it was learned, before λ.
        numbers: how many parameters the norms have.
        factor: the chosen λ, 1 if none was sought.
        points: each λ that was tried, in order.
        outside: λ → accuracy on (test, ood), where the data has both.
        val_top1: accuracy with the chosen λ; None if none was sought.
    """

    shifts: Sequence[Shift]
    numbers: int
    factor: float = 1.0
    points: Sequence[LambdaPoint] = ()
    outside: Mapping[float, tuple[float, float]]
    val_top1: float | None = None

    def to_json(self, what: str) -> dict[str, Any]:
        """For the adapter's `train` record and `--json`; `what` λ multiplies."""
        curve = [
            {
                "lambda": point.factor,
                "val_top1": point.top1,
                "val_loss": point.loss if math.isfinite(point.loss) else None,
                "won": point.won,
                "lost": point.lost,
                **outside_row(self.outside, point.factor),
            }
            for point in self.points
        ]
        rescale = {"what": what, "lambda": self.factor, "curve": curve}
        return {
            "layers": len(self.shifts),
            "numbers": self.numbers,
            "shift": shift_record(self.shifts),
            "rescale": rescale if self.points else None,
        }


def choose_rescale(
    tuned: Tuned,
    norms: LayerNorms,
    sets: Mapping[str, DataSet],
    config: TuneConfig,
    progress: Progress,
) -> Rescaled:
    """Choose λ and leave the model with it.

    Args:
        tuned: with the parameters of the best epoch; its LayerNorms are scaled in place.
        norms: those of `tuned`.
        sets: val decides; test and ood are only reported.
        config: `rescale` says what λ multiplies; of "all" see `vptkit.tune.phases.choose_line`.
        progress: told about each λ.
    """
    shifts, learned = norms.shifts(), norms.learned()
    numbers = sum(value.numel() for value in learned)
    if config.rescale in ("none", "all"):
        return Rescaled(shifts=shifts, numbers=numbers, outside={})

    def measured(factor: float, split: str) -> tuple[NDArray[np.bool_], float]:
        scaled(norms, learned, factor, config.rescale)
        right, loss = answers(tuned, sets[split], config.batch_to_ask)
        progress.update(0, f"lambda {factor:g}: {split} {right.mean():.3f}")
        return right, loss

    points = search_lambda(lambda factor: measured(factor, "val"))
    best = best_lambda(points)
    outside = outside_top1(
        lambda factor, split: float(measured(factor, split)[0].mean()), {*GRID, best.factor}, sets
    )
    scaled(norms, learned, best.factor, config.rescale)
    return Rescaled(
        shifts=shifts,
        numbers=numbers,
        factor=best.factor,
        points=points,
        outside=outside,
        val_top1=best.top1,
    )


def shift_record(shifts: Sequence[Shift]) -> dict[str, Any]:
    """The LayerNorm shift (`methods` 3.2): sums over all norms, and each norm's part."""
    return {
        "total": math.fsum(shift.gamma + (shift.beta or 0.0) for shift in shifts),
        "gamma": math.fsum(shift.gamma for shift in shifts),
        "beta": math.fsum(shift.beta or 0.0 for shift in shifts),
        "layers": [{"name": s.name, "gamma": s.gamma, "beta": s.beta} for s in shifts],
    }
