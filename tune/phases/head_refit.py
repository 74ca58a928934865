"""The head once more, after λ was chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vptkit.tune.training.loop import top1_and_loss
from vptkit.tune.training.train_state import TrainState

from .phase_plan import Phase
from .phase_trainer import PhaseTrainer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vptkit.progress import Progress
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.data.dataset import DataSet
    from vptkit.tune.methods.tuned_model import Tuned

__all__ = ["refit_head"]


def refit_head(
    tuned: Tuned, sets: Mapping[str, DataSet], config: TuneConfig, progress: Progress
) -> float:
    """Train the head again behind the scaled norms; keep it only if val gains.

    Args:
        tuned: with λ applied; left with the better of both heads.
        sets: train and val.
        config: `refit_epochs` and the head's rate and decay.
        progress: told about each step.

    Returns:
        its accuracy on val, a share.
    """
    before = top1_and_loss(tuned, sets["val"], config.batch_to_ask)
    kept = {name: value.clone() for name, value in tuned.state_dict().items()}
    state, phase = TrainState({}), Phase("head", range(config.refit_epochs))
    trainer = PhaseTrainer(tuned=tuned, sets=sets, config=config, state=state, progress=progress)
    progress.total = (progress.total or 0) + trainer.images_left([phase])
    trainer.train(phase, last=config.refit_epochs)
    progress.total = (progress.total or 0) - trainer.images_left([phase])
    record = state.history[state.best_epoch - 1]
    gains = (record["val_top1"], -record["val_loss"]) > (before[0], -before[1])
    tuned.load_state_dict(state.best if gains else kept)
    return float(record["val_top1"] if gains else before[0])
