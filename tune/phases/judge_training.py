"""Was anything learned? Judged by images that were not trained on, before test is looked at.

A training that diverged ends as a rule as the linear probe that it began with: then a warning says
so. Where the kept answers are no better than always the largest class, and say nothing about the
classes either (rare ones may be found at a loss of accuracy), nothing was learned, and no adapter is
written unless `allow_chance`. A few images say neither: then nothing is said.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vptkit.errors import TrainingError
from vptkit.scores.multilabel import mean_auc_deviation
from vptkit.scores.score_interval import percent, share_text, wilson
from vptkit.tune.training.optimizer_step import what_to_lower

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vptkit.tune.config import TuneConfig
    from vptkit.tune.training.run_files import RunFiles
    from vptkit.tune.training.train_state import TrainState

__all__ = ["at_chance", "judge_training", "runaway"]

_ENOUGH = 20  # images, of which chance alone could be told from a training that has not diverged
_CHANCE = 2.0  # standard deviations above that chance alone has in one of forty trainings
_ROSE, _WORSE, _FAR_WORSE = 1.5, 2.0, 4.0  # times the first loss; times that of knowing nothing


class _Judges(NamedTuple):
    """Images that were not trained on: logits of what is kept [images, C], and their classes, or labels [images, C]."""

    logits: NDArray[np.float32]
    targets: NDArray[Any]


def judge_training(
    state: TrainState,
    judges: tuple[NDArray[np.float32], NDArray[Any]],
    labels: Sequence[str],
    config: TuneConfig,
    files: RunFiles,
) -> tuple[str, ...]:
    """What is to be warned of.

    Args:
        state: of the training that is over.
        judges: logits of what is kept [images, C], and the classes, of `unseen_logits`.
        labels: of the classes.
        config: of the run.
        files: of the run, to be named.

    Raises:
        TrainingError: nothing was learned, and that is not allowed.
    """
    logits, targets = _Judges(*judges)
    if targets.ndim == 2:
        return _judge_labels(state, _Judges(*judges), config, files)
    why = runaway(state, targets, len(labels), config)
    found = []
    if why is not None:
        found.append(
            f"the training diverged: {why}. {_kept(state, config)}: lower {what_to_lower(config)}"
        )
    right = int((logits.argmax(axis=1) == targets).sum()) if len(logits) else 0
    enough = len(logits) >= _ENOUGH or why is not None
    if not enough or not at_chance(right, targets) or _tells(logits, targets):
        return tuple(found)
    counts = np.bincount(targets, minlength=len(labels))
    found.append(
        f"Nothing was learned: {share_text(right, len(targets))} of the images that were not trained "
        f"on is no better than always {labels[int(counts.argmax())]!r} "
        f"({percent(counts.max() / len(targets))})"
    )
    return _nothing_learned(found, why, config, files)


def _judge_labels(
    state: TrainState, judges: _Judges, config: TuneConfig, files: RunFiles
) -> tuple[str, ...]:
    """The same for several labels an image: they are ranked no better than by chance.

    That is said where the mean AUC is not two standard deviations above a half.
    """
    logits, targets = judges
    why = runaway(state, targets, 2, config)
    found = []
    if why is not None:
        found.append(
            f"the training diverged: {why}. {_kept(state, config)}: lower {what_to_lower(config)}"
        )
    finite = bool(len(logits)) and bool(np.isfinite(logits).all())
    if len(logits) < _ENOUGH or (finite and mean_auc_deviation(logits, targets) > _CHANCE):
        return tuple(found)
    found.append(
        f"Nothing was learned: of the {len(targets)} images that were not trained on, those with a label "
        "have no higher probability of it than the others, beyond chance"
    )
    return _nothing_learned(found, why, config, files)


def _nothing_learned(
    found: list[str], why: str | None, config: TuneConfig, files: RunFiles
) -> tuple[str, ...]:
    """What was found, if that is allowed.

    Raises:
        TrainingError: it is not.
    """
    if config.allow_chance:
        return tuple(found)
    found[-1] += "" if why else ". Do the labels belong to the images?"
    raise TrainingError(
        ". ".join(part.rstrip(".") for part in found) + ". No adapter was written. The training is "
        f"kept in {files.checkpoint.name}: with --resume --allow-chance the same command writes its "
        "adapter all the same; --force starts anew, with other settings"
    )


def runaway(
    state: TrainState, targets: NDArray[Any], classes: int, config: TuneConfig
) -> str | None:
    """Why a training is said to have diverged; None: it has not.

    Args:
        state: its history; without val, what was held out.
        targets: classes of the images that judge it, int64 [images].
        classes: C; 2 of several labels, each of which is there or not.
        config: `select`.
    """
    if state.stopped is not None:
        return state.stopped
    if any(len(part) and not part[-1].any() for part in state.held_out):
        return "the loss of a training without one of the parts was not finite any more"
    knowing_nothing = math.log(classes)
    losses = [record["train_loss"] for record in state.history]
    kept_last = state.history and state.best_epoch == state.epoch and config.select != "last"
    if losses and not kept_last:
        first, last = losses[0], losses[-1]
        if last > _WORSE * knowing_nothing:
            return (
                f"the training loss ended at {last:.3g}; knowing nothing has {knowing_nothing:.3g}"
            )
        if last > _ROSE * first and last - first > 0.1 * knowing_nothing:
            return f"the training loss rose from {first:.3g} to {last:.3g}"
    return _val_ran_away(state, targets, knowing_nothing)


def _val_ran_away(state: TrainState, targets: NDArray[Any], knowing_nothing: float) -> str | None:
    """By what val, or what was held out, says of the last epoch, if that is not the kept one."""
    held = state.cross_validation
    records = state.records if held is None else held.records
    if len(records) < 2 or records[-1]["val_loss"] is None:
        return None
    loss, best = records[-1]["val_loss"], min(record["val_loss"] for record in records)
    if loss > _FAR_WORSE * knowing_nothing and loss > _WORSE * best:
        return f"the loss on images not trained on ended at {loss:.3g}; its best was {best:.3g}"
    if targets.ndim == 2:
        return None
    last, count = round(records[-1]["val_top1"] * len(targets)), len(targets)
    most = round(max(record["val_top1"] for record in records) * count)
    if count >= _ENOUGH and at_chance(last, targets) and not at_chance(most, targets):
        return (
            f"after the last epoch {percent(last / count)} was right of the images not trained on"
        )
    return None


def at_chance(right: int, targets: NDArray[np.int64]) -> bool:
    """Whether so many right answers are no better than always the largest class, beyond doubt.

    By Wilson's interval: it does not lie above the largest class's share, and does not reach half of
    the way from there to all.
    """
    if not len(targets):
        return False
    low, high = wilson(right, len(targets))
    largest = float(np.bincount(targets).max()) / len(targets)
    return low <= largest and high < (1 + largest) / 2


def _tells(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> bool:
    """Whether answers agree with the truth more often than if they were dealt out at random.

    Mean and variance of the agreement of two lists of classes over all orders of one of them; more
    than two standard deviations above the mean are a sign.
    """
    if not np.isfinite(logits).all():
        return False
    answers, count = logits.argmax(axis=1), len(targets)
    mine, truth = (
        np.bincount(v, minlength=logits.shape[1]).astype(float) for v in (answers, targets)
    )
    pairs = float((mine * truth).sum())
    mean = pairs / count
    same = float((mine * (mine - 1) * truth * (truth - 1)).sum())
    others = pairs**2 - float((mine**2 * truth**2).sum())
    variance = (same + others) / (count * (count - 1)) + mean - mean**2 if count > 1 else 0.0
    return bool((answers == targets).sum() > mean + 2 * math.sqrt(max(variance, 0.0)) + 1e-9)


def _kept(state: TrainState, config: TuneConfig) -> str:
    if state.best_epoch == 0:
        drawn = ", with prompts as they were drawn," if config.prompted else ""
        return f"The linear probe that it began with{drawn} was kept"
    if config.select == "last":
        return f"Epoch {state.best_epoch}, the last, was taken all the same"
    return f"Epoch {state.best_epoch} was kept"
