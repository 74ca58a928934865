"""The straight line between start and end of a training, and which of its points is taken.

    θ(α) = θ_start + α (θ_end - θ_start)

over all that is learned: prompts, LayerNorms, LoRA's products and head (WiSE-FT: Wortsman et al., CVPR 2022). It
keeps of the start what tuning forgot, costs a few passes over val and nothing at inference. The
paper's lines end at α = 1; two points behind it are tried as well. The LN paper's λ (`methods` 3.2,
`lambda_search`) is the same line of the LayerNorms alone.

What moves are the parameters. Of prompts that are products, A Bᵀ and P Wᵀ, these are the factors,
each along its own line; their product then moves along a parabola. Of LoRA the product is what moves
along the line, exactly: it begins at b = 0, so a stays at its end and b moves.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from vptkit.scores.probabilities import log_losses, top1_and_log_loss
from vptkit.scores.temperature import fit_temperature

from .lora import FIRST_FACTORS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["GRID", "LinePoint", "best_point", "curve_of", "judged_point", "moved", "on_line"]

GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5)


class LinePoint(NamedTuple):
    """One α that was tried.

    Attributes:
        alpha: α, 0 at the start and 1 at the end.
        top1: accuracy on val, a share.
        losses: of each image of val, cross-entropy in nats behind the point's own temperature.
    """

    alpha: float
    top1: float
    losses: NDArray[np.float64]

    @property
    def loss(self) -> float:
        """Mean of `losses`."""
        return float(self.losses.mean())


def best_point(points: Sequence[LinePoint]) -> LinePoint:
    """The rule: the smallest loss on val; of equals the one nearest to the start.

    The images of `losses` are the same at each point, so that a rule may compare points in pairs.
    """
    return min(points, key=lambda point: (point.loss, point.alpha))


def judged_point(alpha: float, logits: NDArray[Any], truth: NDArray[Any]) -> LinePoint | None:
    """What val says of a point.

    A head that was trained for longer is surer, and a point between two heads less sure than both.
    So each point has a temperature of its own (`fit_temperature`) before losses are compared.

    Args:
        alpha: α.
        logits: of val, [images, C].
        truth: index of each image's class, [images]; or whether it has each label, [images, C].

    Returns:
        None if a logit is NaN or Inf: such a point is left out.
    """
    fitted = fit_temperature(logits, truth)
    if fitted is None:
        return None
    losses = log_losses(logits.astype(float) / fitted.temperature, truth)
    return LinePoint(alpha, top1_and_log_loss(logits, truth)[0], losses)


def curve_of(points: Sequence[LinePoint]) -> list[dict[str, float]]:
    """The points for a record, by α.

    Returns:
        {"alpha", "val_top1", "val_loss", "val_loss_error"} each. The last is the standard error of
        the mean difference, image by image, to the point of the smallest loss: 0 there.
    """
    lowest = min(points, key=lambda point: point.loss)
    return [
        {
            "alpha": point.alpha,
            "val_top1": point.top1,
            "val_loss": point.loss,
            "val_loss_error": float((point.losses - lowest.losses).std())
            / math.sqrt(len(point.losses)),
        }
        for point in points
    ]


def moved(start: Tensor, end: Tensor, factor: float) -> Tensor:
    """Start + factor (end - start), in float64, rounded once; 0 and 1 give start and end bit by bit."""
    if factor == 1:
        return end
    between = start.double() + factor * (end.double() - start.double())
    return between.to(end.dtype)


def on_line(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """A `state_dict` on the line between two of the same model, computed on the CPU.

    LoRA's a is that of the end everywhere, also at the start, where its product is zero.

    Args:
        start, end: tensors by name, on any device.
        alpha: α.
    """
    return {
        name: value.cpu()
        if name.startswith(FIRST_FACTORS)
        else moved(start[name].cpu(), value.cpu(), alpha)
        for name, value in end.items()
    }
