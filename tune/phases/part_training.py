"""A whole training while a part of the images is held out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vptkit.errors import TrainingError
from vptkit.scores.probabilities import top1_and_log_loss
from vptkit.tune.training.loop import split_logits
from vptkit.tune.training.train_state import TrainState

from .new_model import new_model
from .phase_plan import epochs_of, phases
from .phase_trainer import PhaseTrainer
from .probe_start import put_head

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from .new_model import Training

__all__ = ["train_without_part"]


def train_without_part(
    training: Training, probe: tuple[Tensor, Tensor] | None
) -> list[NDArray[np.float32]]:
    """Train every epoch; nothing ends it early, and nothing is written.

    Args:
        training: sets: train, without the part, and val, the part.
        probe: (weight, bias) of the head to begin with, solved on the same images; None for zero.

    Returns:
        logits of the part's images, [images, C], at the start (with a probe) and after each epoch;
        all 0 from the epoch on whose loss was not finite any more.
    """
    config, sets = replace(training.config, patience=None), training.sets
    training = replace(training, config=config)
    state, plan = TrainState(training.identity), phases(config)
    tuned, targets = new_model(training, state, None, bursts=False), sets["val"].split.targets
    noted: list[NDArray[np.float32]] = []

    def validation() -> tuple[float, float]:
        logits = split_logits(tuned, sets["val"], config.batch_to_ask)
        noted.append(logits)
        return top1_and_log_loss(logits, targets)

    if probe is not None:
        put_head(tuned, *probe)
        validation()
    trainer = PhaseTrainer(
        tuned=tuned,
        sets=sets,
        config=config,
        state=state,
        progress=training.progress,
        validation=validation,
    )
    try:
        for phase in plan:
            trainer.train(phase, last=plan[-1].epochs.stop)
    except TrainingError:  # from there on it knows nothing, as other parts may not
        finite = [logits for logits in noted if np.isfinite(logits).all()]
        left = epochs_of(config) + (probe is not None) - len(finite)
        nothing = np.zeros((len(targets), tuned.head.out_features), np.float32)
        return [*finite, *[nothing] * left]
    return noted
