"""One phase of a training: its optimiser, its batches (of images or of features), its epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vptkit.tune.methods.tuned_model import parameter_groups
from vptkit.tune.training.checkpoint import restore_moments
from vptkit.tune.training.frozen_features import feature_batches, feature_evaluation
from vptkit.tune.training.loop import EpochData, image_batches, rate_at, top1_and_loss, train
from vptkit.tune.training.optimizer_step import class_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from vptkit.progress import Progress
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.data.dataset import DataSet
    from vptkit.tune.methods.tuned_model import Part, Tuned
    from vptkit.tune.training.train_state import TrainState

    from .phase_plan import Phase

__all__ = ["PhaseTrainer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTrainer:
    """Trains a model phase by phase.

    Attributes:
        tuned: the model; its parameters change.
        sets: train and val.
        config: of the run.
        state: how far the training has come; filled in.
        progress: told about each step.
        validation: what closes an epoch, if it is not to ask val (`EpochData.validation`).
        until: the last epoch, if the training is to end before its schedule does.
    """

    tuned: Tuned
    sets: Mapping[str, DataSet]
    config: TuneConfig
    state: TrainState
    progress: Progress
    validation: Callable[[], tuple[float | None, float | None]] | None = None
    until: int | None = None

    def train(
        self,
        phase: Phase,
        *,
        last: int,
        after_epoch: Callable[[Phase, torch.optim.Optimizer], None] = lambda *_: None,
        moments: Mapping[str, Tensor] | None = None,
        enough: Callable[[TrainState], bool] = lambda _: False,
    ) -> None:
        """From `state.epoch` to the end of the phase.

        Args:
            phase: what learns, and in which epochs.
            last: the run's last epoch, to be told.
            after_epoch: called with the phase and its optimiser after each epoch.
            moments: the tensors of a checkpoint, if a run goes on in the middle of the phase.
            enough: asked before each epoch whether there shall be none.

        Raises:
            VptkitError: the loss is not finite any more.
        """
        self.tuned.learn(phase.part)
        optimizer = torch.optim.AdamW(parameter_groups(self.tuned, self.config, phase.part))
        if moments is not None:
            restore_moments(optimizer, moments)
        data = self._epoch_data(phase.part)
        targets, classes = self.sets["train"].split.targets, self.tuned.head.out_features
        train(
            self.tuned,
            optimizer,
            data,
            self.config,
            self.state,
            progress=self.progress,
            after_epoch=lambda: after_epoch(phase, optimizer),
            epochs=phase.epochs,
            last=last,
            until=self.until,
            weights=class_weights(self.config, targets, classes),
            enough=enough,
        )

    def rates_after(self, plan: Sequence[Phase], epoch: int) -> dict[str, float]:
        """Part of the model → its learning rate at the last step of an epoch.

        Args:
            plan: all phases.
            epoch: from 1.
        """
        phase = next(one for one in plan if epoch - 1 in one.epochs)
        steps = self._steps(phase.part)
        last = (epoch - phase.epochs.start) * steps - 1
        share = rate_at(last, len(phase.epochs) * steps, self.config.warmup)
        groups = parameter_groups(self.tuned, self.config, phase.part)
        return {group["name"]: share * group["base_lr"] for group in groups}

    def images_left(self, plan: Sequence[Phase]) -> int:
        """How many training images the epochs of these phases show that are not done."""
        images, total = len(self.sets["train"]), 0
        for phase in plan:
            stop = phase.epochs.stop if self.until is None else min(self.until, phase.epochs.stop)
            epochs = range(max(self.state.epoch, phase.epochs.start), stop)
            shown = self._steps(phase.part) * self.config.batch_of(images)
            total += min(images, shown) * len(epochs)
        return total

    def _epoch_data(self, part: Part) -> EpochData:
        tuned, config, data = self.tuned, self.config, self.sets["train"]
        from_features = self._from_features(part)
        batches = (
            feature_batches(tuned, data, config) if from_features else image_batches(data, config)
        )
        validation = self.validation or self._asking_val(part)
        return EpochData(batches, self._steps(part), validation, from_features)

    def _asking_val(self, part: Part) -> Callable[[], tuple[float, float]]:
        tuned, val, config = self.tuned, self.sets["val"], self.config
        if self._from_features(part):
            return feature_evaluation(tuned, val, config)
        return lambda: top1_and_loss(tuned, val, config.batch_to_ask)

    def _from_features(self, part: Part) -> bool:
        """Whether only the head learns, from features that stay the same."""
        return part == "head" and self.config.augment != "crop"

    def _steps(self, part: Part) -> int:
        """Of an epoch. Of images a last batch of less than half the size is dropped, of features none."""
        train = self.sets["train"]
        size = self.config.batch_of(len(train))
        if self._from_features(part):
            return -(-len(train) // size)
        return train.training_steps(size)
