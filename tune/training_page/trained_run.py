"""What a run says of itself, for its page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vptkit.tune.training.train_state import CrossValidation

    from .hardest_images import HardImage

__all__ = ["TrainedRun"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRun:
    """What a run says of itself.

    With several labels an image what is called top1 is the mean average precision.

    Attributes:
        name, method: of the adapter.
        learned: how many numbers.
        record: what the adapter file says of the training (`vptkit.tune.run.write_run`).
        images: split → number of images.
        history: the start, if it is a probe, and every epoch; what was taken has `taken`.
        norms: `vptkit.tune.run.choose_lambda.Rescaled.to_json`; None if no LayerNorms were tuned.
        line: `vptkit.tune.phases.choose_line.Line.to_json`; None if none was walked.
        auto: what `--method auto` tried and kept; None of any other method.
        held: what chose, where there is no val.
        judges: how many images judged: val's, or those that were held out.
        hardest: some of them.
        several: labels an image.
    """

    name: str
    method: str
    learned: int
    record: Mapping[str, Any]
    images: Mapping[str, int]
    history: Sequence[Mapping[str, Any]]
    norms: Mapping[str, Any] | None = None
    line: Mapping[str, Any] | None = None
    auto: Mapping[str, Any] | None = None
    held: CrossValidation | None = None
    judges: int = 0
    hardest: Sequence[HardImage] = ()
    several: bool = False

    @property
    def score(self) -> str:
        """What top1 is."""
        return "mAP" if self.several else "top-1"

    @property
    def judge(self) -> str:
        """Which images chose."""
        return "val" if self.held is None else "held-out images"
