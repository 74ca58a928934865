"""What a training is made of, and the model as it begins with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from vptkit.tune.methods.tuned_model import Tuned, merging_of, wants_whitening
from vptkit.tune.training.checkpoint import restore_parameters
from vptkit.tune.training.device import choose_device, place

from .whiten_from_images import whitening_matrices

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.progress import Progress
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.data.dataset import DataSet
    from vptkit.tune.training.event_log import EventLog
    from vptkit.tune.training.run_files import RunFiles
    from vptkit.tune.training.train_state import TrainState

__all__ = ["Training", "new_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What a training is made of.

    Attributes:
        backbone, spec: the frozen timm model and its description.
        sets: train, and val; without val, cross-validation chooses (`cross_validation`).
        config, identity: the run, and what a checkpoint must agree with.
        files: where metrics and checkpoints go.
        progress: told about each step.
        log: of TensorBoard, if one is asked for; None in all of torchrun's processes but the first.
    """

    backbone: Any
    spec: BackboneSpec
    sets: Mapping[str, DataSet]
    config: TuneConfig
    identity: dict[str, Any]
    files: RunFiles
    progress: Progress
    log: EventLog | None = None


def new_model(
    training: Training,
    state: TrainState,
    kept: dict[str, Tensor] | None,
    *,
    bursts: bool = True,
) -> Tuned:
    """The model as the training begins with it, where it is trained.

    Args:
        training: its train split gives the whitening matrices, where they are needed.
        state: their diagnostics are noted there.
        kept: the tensors of a checkpoint, if the training goes on from one.
        bursts: of `whitening_matrices`.
    """
    backbone, spec, config = training.backbone, training.spec, training.config
    matrices = None
    if wants_whitening(config):
        if kept is None:
            merging = merging_of(spec, config)
            matrices, state.whitening = whitening_matrices(
                backbone, training.sets["train"], config, merging, bursts=bursts
            )
        else:  # the checkpoint holds what became of them
            matrices = [torch.zeros(spec.width, spec.width)] * spec.depth
    tuned = Tuned(backbone, spec, config, len(training.identity["labels"]), matrices)
    if kept is not None:
        restore_parameters(tuned, kept)
    place(tuned, choose_device(config.device), config)
    return tuned
