"""Where there is no val: strength and epoch are chosen on held-out parts of train.

Each part is held out once: a probe and a whole training on the others, judged by it after each
epoch. What is best over all that was held out is then done once more, on all images: with few of
them each one counts for learning *and* for choosing, and none judges a model that has seen it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vptkit.errors import DataError
from vptkit.progress import begin_phase
from vptkit.scores.probabilities import top1_and_log_loss
from vptkit.tune.data.cross_validation_parts import cross_validation_parts, without_part
from vptkit.tune.data.dataset import DataSet
from vptkit.tune.probe.fit_probe import Rows
from vptkit.tune.probe.nearest_neighbours import cross_validated_knn
from vptkit.tune.training.distributed import leads, sum_over_processes
from vptkit.tune.training.frozen_features import feature_rows
from vptkit.tune.training.loop import is_best, keep_if_best, out_of_patience
from vptkit.tune.training.train_state import CrossValidation, TrainState

from .part_training import train_without_part
from .phase_plan import epochs_of, phases, stalled
from .phase_trainer import PhaseTrainer
from .probe_start import NEIGHBOURS, fitted_probe, put_head

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from vptkit.progress import Progress
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.methods.tuned_model import Tuned
    from vptkit.tune.probe.fit_probe import Probe

    from .new_model import Training

__all__ = ["cross_validate", "held_out_record"]


def cross_validate(
    training: Training, tuned: Tuned, state: TrainState, keep: Callable[[], None]
) -> CrossValidation:
    """Choose strength and epoch; note what chose, and the start of the training on all images.

    If no image can be held out (one a class), the strength is fixed and the last epoch is taken.

    Args:
        training: its train split is all there is.
        tuned: gets the probe of all images as its head, if it begins as the probe.
        state: `start` and with it the best so far, `held_out` and `cross_validation` are filled in;
            parts that it has already are not held out again.
        keep: called when something was found: the probe, and each part.

    Returns:
        what chose, as the state has it.

    Raises:
        DataError: the state has parts of another training.
    """
    config, data = training.config, training.sets["train"]
    parts = cross_validation_parts(data.split.targets, config.seed)
    begun = state.folds is not None
    folds = int(parts.max()) + 1
    if begun:
        _require_fitting(training, state, parts)
    state.folds = folds
    if not begun or len(state.held_out) < folds:
        found = None
        if config.starts_from_probe:
            found, record = _probe(tuned, data, parts, config, training.progress)
            if not begun:
                _start(tuned, found, record, state, config)
                keep()
        _hold_out(training, tuned, found, parts, state, keep)
    chose = _chosen(state.held_out, parts, data.split.targets, config)
    state.cross_validation = chose
    if state.start:
        state.start |= chose.record_of(0)
    return chose


def _start(
    tuned: Tuned,
    found: Probe,
    record: dict[str, Any],
    state: TrainState,
    config: TuneConfig,
) -> None:
    """The probe of all images as the state before the first epoch; of prompts nothing is known yet."""
    put_head(tuned, found.weight, found.bias)
    told = {key: record[key] for key in ("val_top1", "val_loss")}
    state.start = {"epoch": 0, **told, "probe": record}
    keep_if_best(tuned, config, state)


def _hold_out(
    training: Training,
    tuned: Tuned,
    found: Probe | None,
    parts: NDArray[np.int64],
    state: TrainState,
    keep: Callable[[], None],
) -> None:
    """Train without each part that is not done, and keep what it says."""
    config, data, progress = training.config, training.sets["train"], training.progress
    folds = int(parts.max()) + 1
    left = range(len(state.held_out), folds)
    sets = [_held_out(data, parts, part) for part in left]
    own = _images(tuned, {"train": data}, config, progress)
    ahead = own + sum(_images(tuned, pair, config, progress) for pair in sets)
    begin_phase(progress, "training")
    progress.total = (progress.total or 0) + ahead
    for part, pair in zip(left, sets, strict=True):
        bar = _Titled(progress, f"{part + 1} of {folds} parts held out: ")
        one = replace(training, sets=pair, progress=bar)
        logits = train_without_part(one, None if found is None else found.without[part])
        state.held_out.append(torch.from_numpy(np.stack(logits)))
        keep()
    progress.total = (progress.total or 0) - own  # counted again by the training on all


def _require_fitting(training: Training, state: TrainState, parts: NDArray[np.int64]) -> None:
    """Refuse a checkpoint whose parts are not those of this training.

    Raises:
        DataError: they are not.
    """
    folds, epochs = int(parts.max()) + 1, len(_epochs(training.config))
    shapes = [tuple(value.shape) for value in state.held_out]
    classes = len(training.identity["labels"])
    wanted = [(epochs, int((parts == part).sum()), classes) for part in range(folds)]
    whole = all(v.dtype == torch.float32 and v.isfinite().all() for v in state.held_out)
    if (
        not whole
        or bool(state.start) != training.config.starts_from_probe
        or state.folds != folds
        or shapes != wanted[: len(shapes)]
        or (state.epoch and len(shapes) < folds)
    ):
        raise DataError(
            f"{training.files.checkpoint}: damaged checkpoint: the held-out parts are not those of "
            "this training. Remove it to start anew."
        )


def held_out_record(state: TrainState) -> tuple[float | None, float | None]:
    """(top-1, log-loss) of what was held out, of the epoch that is being closed; None: unknown."""
    assert state.cross_validation is not None  # noqa: S101 - the caller has no val
    record = state.cross_validation.record_of(state.epoch + 1)
    return record["val_top1"], record["val_loss"]


class _Titled:
    """A progress that says which part is held out; its epochs leave no lines."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress, self._title = progress, title

    @property
    def total(self) -> int | None:
        return self._progress.total

    @total.setter
    def total(self, value: int | None) -> None:
        self._progress.total = value

    def update(self, advance: int = 1, text: str = "") -> None:
        self._progress.update(advance, self._title + text)


def _held_out(data: DataSet, parts: NDArray[np.int64], part: int) -> dict[str, DataSet]:
    splits = without_part(data.split, parts, part)
    return {
        name: DataSet(split, data.preprocess)
        for name, split in zip(("train", "val"), splits, strict=True)
    }


def _images(
    tuned: Tuned, sets: Mapping[str, DataSet], config: TuneConfig, progress: Progress
) -> int:
    """How many training images a whole training shows."""
    state = TrainState({})
    trainer = PhaseTrainer(tuned=tuned, sets=sets, config=config, state=state, progress=progress)
    return trainer.images_left(phases(config))


def _probe(
    tuned: Tuned,
    data: DataSet,
    parts: NDArray[np.int64],
    config: TuneConfig,
    progress: Progress,
) -> tuple[Probe, dict[str, Any]]:
    """The probe from the features of all images, and its record, with the floor of the neighbours."""
    classes = tuned.head.out_features
    rows = feature_rows(tuned, data, config, progress, augmented=True)
    places = torch.from_numpy(parts).to(rows.targets.device)
    plain = Rows(*(values[: len(data)] for values in rows))
    one = rows.targets.dim() == 1  # label an image: neighbours vote
    neighbours = {str(k): cross_validated_knn(plain, places, classes, k) for k in NEIGHBOURS if one}
    begin_phase(progress, "probe")
    progress.update(0, "probe")
    found = fitted_probe(rows, data, config, classes, parts=places)
    return found, {**found.to_json(), "knn_top1": neighbours}


def _chosen(
    logits: Sequence[torch.Tensor],
    parts: NDArray[np.int64],
    targets: NDArray[Any],
    config: TuneConfig,
) -> CrossValidation:
    """The records over all parts, and which epoch they choose.

    Args:
        logits: `TrainState.held_out`, of all parts.
        parts, targets: of each image.
        config: `select`, `patience`, and `cycles`.
    """
    epochs, held = _epochs(config), parts >= 0
    if not logits:
        return CrossValidation(0, epochs.stop - 1, [], torch.zeros(0, 0))

    def answers(epoch: int) -> NDArray[np.float32]:
        """Logits of all that was held out, [images, C]; all epochs' at once may be gigabytes."""
        whole = np.zeros((len(parts), logits[0].shape[2]), np.float32)
        for part, by_epoch in enumerate(logits):
            whole[parts == part] = by_epoch[epoch - epochs.start].numpy()
        return whole[held]

    records = []
    for epoch in epochs:
        top1, loss = top1_and_log_loss(answers(epoch), targets[held])
        records.append({"epoch": epoch, "val_top1": top1, "val_loss": loss})
    choice = torch.tensor([_best_epoch(records, config) if leads() else 0])
    sum_over_processes([choice])  # one choice for all, were the last bits to differ
    best = int(choice)
    told = _by_part(logits, parts, targets, epochs)
    return CrossValidation(len(logits), best, records, torch.from_numpy(answers(best)), told)


def _by_part(
    logits: Sequence[torch.Tensor],
    parts: NDArray[np.int64],
    targets: NDArray[Any],
    epochs: range,
) -> list[list[dict[str, Any]]]:
    """The records of each part alone; it may be too small to say much."""
    found = []
    for part, by_epoch in enumerate(logits):
        truth, records = targets[parts == part], []
        for epoch, answers in zip(epochs, by_epoch, strict=True):
            top1, loss = top1_and_log_loss(answers.numpy(), truth)
            about = {"epoch": epoch, "images": len(truth)}
            records.append({**about, "val_top1": top1, "val_loss": loss})
        found.append(records)
    return found


def _epochs(config: TuneConfig) -> range:
    """Those that can be chosen; 0 is the probe."""
    return range(0 if config.starts_from_probe else 1, epochs_of(config) + 1)


def _best_epoch(records: Sequence[dict[str, Any]], config: TuneConfig) -> int:
    """The epoch that a training with these records would choose, and where it would end."""
    first = records[0]["epoch"]
    state = TrainState({}, start={} if first else records[0])
    for phase in phases(config):
        if stalled(phase, state, config):
            break
        for epoch in phase.epochs:
            if out_of_patience(state, config):
                break
            state.epoch = epoch + 1
            state.history.append(records[state.epoch - first])
            if is_best(config, state):
                state.best_epoch = state.epoch
    return state.best_epoch
