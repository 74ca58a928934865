"""The model as a training begins with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vptkit.tune.methods.tuned_model import Tuned, wants_whitening
from vptkit.tune.training.checkpoint import restore_parameters
from vptkit.tune.training.device import choose_device, place

from .whiten_from_images import whitening_matrices

if TYPE_CHECKING:
    from torch import Tensor

    from vptkit.tune.training.train_state import TrainState

    from .phased_training import Training

__all__ = ["new_model"]


def new_model(training: Training, state: TrainState, kept: dict[str, Tensor] | None) -> Tuned:
    """The model as the training begins with it, where it is trained.

    Args:
        training: its train split gives the whitening matrices, where they are needed.
        state: their diagnostics are noted there.
        kept: the tensors of a checkpoint, if the training goes on from one.
    """
    backbone, spec, config = training.backbone, training.spec, training.config
    matrices = None
    if wants_whitening(config):
        if kept is None:
            matrices, state.whitening = whitening_matrices(backbone, training.sets["train"], config)
        else:  # the checkpoint holds what became of them
            matrices = [torch.zeros(spec.width, spec.width)] * spec.depth
    tuned = Tuned(backbone, spec, config, len(training.identity["labels"]), matrices)
    if kept is not None:
        restore_parameters(tuned, kept)
    place(tuned, choose_device(config.device), config)
    return tuned
