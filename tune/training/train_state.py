"""How far a training has come, without the file it is kept in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["CrossValidation", "TrainState"]


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """What chose, where there is no val: held-out parts of train (`vptkit.tune.phases.cross_validation`).

    Attributes:
        folds: how many parts there were; 0 if no image could be held out.
        best_epoch: where the training on all images ends.
        records: {"epoch", "val_top1", "val_loss"} of each epoch, over all that was held out; from 0
            if the head begins as the probe. Empty if no image could be held out.
        logits: of the held-out images at the best epoch, in the order of train, float32 [h, C].
        parts: the same records of each part, with its number of "images".
    """

    folds: int
    best_epoch: int
    records: list[dict[str, Any]]
    logits: torch.Tensor
    parts: list[list[dict[str, Any]]] = field(default_factory=list)

    def record_of(self, epoch: int) -> dict[str, Any]:
        """Of an epoch; None for what nothing says."""
        unknown = {"epoch": epoch, "val_top1": None, "val_loss": None}
        return next((record for record in self.records if record["epoch"] == epoch), unknown)


@dataclass(slots=True)
class TrainState:
    """How far a training has come.

    With several labels an image `val_top1` is the mean average precision, and `train_top1` the share of
    labels that are right at p = 1/2; files and documents call them so (`vptkit.scores.label_report`).

    Attributes:
        identity: configuration and digests; a checkpoint of another run is refused.
        epoch: epochs done.
        history: one record an epoch.
        start: what val says before the first epoch, {"epoch": 0, "val_top1", "val_loss", "probe"};
            empty if the head begins at zero.
        best_epoch: the epoch (from 1) that is the best so far, 0 for the start.
        best: the parameters of that epoch.
        runners_up: (epoch, parameters) of the next best, best first, for a soup (`select` "soup");
            else empty.
        start_parameters: those before the first epoch, where the line from start to end is asked for
            (`rescale` "all"); else empty.
        whitening: diagnostics of the whitening matrices.
        scaler: of fp16's losses, as torch's GradScaler has it; empty otherwise.
        folds: parts of the cross-validation, if there is no val and it has begun.
        held_out: of each part that is done, in turn: logits of its images after each epoch that can
            be chosen, float32 [epochs, images, C].
        stopped: why the training ended before its last epoch, if its loss was not finite any more; a
            training that goes on finds out again.
        cross_validation: what all parts chose; of these, so not kept in a checkpoint.
    """

    identity: dict[str, Any]
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    start: dict[str, Any] = field(default_factory=dict)
    best_epoch: int = 0
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    runners_up: list[tuple[int, dict[str, torch.Tensor]]] = field(default_factory=list)
    start_parameters: dict[str, torch.Tensor] = field(default_factory=dict)
    whitening: list[dict[str, Any]] = field(default_factory=list)
    scaler: dict[str, float] = field(default_factory=dict)
    folds: int | None = None
    held_out: list[torch.Tensor] = field(default_factory=list)
    stopped: str | None = None
    cross_validation: CrossValidation | None = None

    def record_of(self, epoch: int) -> dict[str, Any]:
        """Of an epoch that is done, or of the start."""
        return self.history[epoch - 1] if epoch else self.start

    @property
    def best_record(self) -> dict[str, Any] | None:
        """The record of the best epoch, or of the start; None before there is one."""
        return self.record_of(self.best_epoch) or None

    @property
    def records(self) -> list[dict[str, Any]]:
        """The start, if there is one, and every epoch."""
        return [self.start, *self.history] if self.start else self.history
