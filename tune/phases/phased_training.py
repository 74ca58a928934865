"""A training from its first to its last phase, fresh or gone on with from a checkpoint."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from vptkit.atomic_files import atomic_file
from vptkit.errors import TrainingError
from vptkit.formats.manifest_schema import MULTILABEL
from vptkit.progress import begin_phase, keep_line
from vptkit.scores.label_report import with_map_names
from vptkit.tune.training.checkpoint import load_checkpoint, save_checkpoint
from vptkit.tune.training.distributed import leads
from vptkit.tune.training.train_state import TrainState

from .cross_validation import cross_validate, held_out_record
from .new_model import new_model
from .phase_plan import phases, stalled
from .phase_trainer import PhaseTrainer
from .probe_start import start_from_probe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch
    from torch import Tensor

    from vptkit.tune.config import TuneConfig
    from vptkit.tune.methods.tuned_model import Tuned
    from vptkit.tune.training.event_log import EventLog
    from vptkit.tune.training.run_files import RunFiles

    from .new_model import Training
    from .phase_plan import Phase

__all__ = ["Trained", "train_phases", "write_metrics"]


class Trained(NamedTuple):
    """What a training leaves: the model of its last epoch, and the state that holds the best one."""

    model: Tuned
    state: TrainState


def train_phases(
    training: Training,
    *,
    resume: bool = False,
    on_epoch: Callable[[Path], None] | None = None,
    enough: Callable[[TrainState], bool] = lambda _: False,
) -> Trained:
    """Train every phase, from the beginning or from a checkpoint.

    Args:
        training: data, backbone, settings and files.
        resume: go on from the checkpoint, if there is one.
        on_epoch: called with the checkpoint after each epoch.
        enough: asked before each epoch whether there shall be none; the checkpoint stays.

    Raises:
        DataError: the checkpoint is damaged, or of another run.
        TrainingError: the loss is not finite any more, and there is no epoch or probe to be kept.
        VptkitError: the pool does not fit the backbone.
    """
    training = _settled(training)
    config, progress = training.config, training.progress
    state, kept = _begin(training, resume=resume)
    tuned = new_model(training, state, kept)
    keep_line(progress, _learned_line(tuned, state, config))
    plan = phases(config)
    trainer = _trainer(training, tuned, state, plan, on_epoch)
    if state.cross_validation is None:  # which is counted together with what follows
        begin_phase(progress, "training")
    progress.total = (progress.total or 0) + trainer.images_left(plan)
    noted = functools.partial(_note, training.log, trainer, plan)
    after_epoch = functools.partial(_keep_epoch, trainer, training.files, on_epoch, noted)
    for phase in plan:
        if not trainer.images_left([phase]):
            continue
        if stalled(phase, state, config):
            break
        moments = kept if state.epoch > phase.epochs.start else None
        last = plan[-1].epochs.stop
        try:
            trainer.train(phase, last=last, after_epoch=after_epoch, moments=moments, enough=enough)
        except TrainingError as error:
            if not state.best:  # nothing there is that could be kept
                raise
            state.stopped = str(error).partition(":")[0]
            break
    if state.stopped is None and (
        skipped := trainer.images_left(plan)
    ):  # patience and cycles may end a run early
        progress.total = (progress.total or 0) - skipped
        progress.update(0)
    noted()
    return Trained(tuned, state)


def _learned_line(tuned: Tuned, state: TrainState, config: TuneConfig) -> str:
    """As "vit_tiny_patch16_224: 5.5 M frozen, 10,565 learned (0.19 %) by ln"."""
    learned = tuned.trainable()[0]
    frozen = sum(p.numel() for p in tuned.backbone.parameters() if not p.requires_grad)
    share = f"{100 * learned / (frozen + learned):.2g} %"
    begun = f"; going on after epoch {state.epoch}" if state.epoch else ""
    merged = f"; {tuned.merging.merged} tokens merged away" if tuned.merging else ""
    return (
        f"{config.backbone}: {_short(frozen)} frozen, {learned:,} learned ({share}) by "
        f"{config.method}{merged}{begun}"
    )


def _short(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 100_000 else f"{count:,}"


def _settled(training: Training) -> Training:
    """Without val there is no soup to be tasted, and the last epoch is taken.

    The best one by what was held out may lie where the rate is still high: a training on all images that
    ends there is another model than those that were judged.
    """
    config = training.config
    probe_alone = config.method == "linear"  # which has no epochs to select
    if "val" in training.sets or config.select != "soup" or probe_alone:
        return training
    return replace(training, config=replace(config, select="last"))


def _trainer(
    training: Training,
    tuned: Tuned,
    state: TrainState,
    plan: Sequence[Phase],
    on_epoch: Callable[[Path], None] | None,
) -> PhaseTrainer:
    """The trainer of a model that stands at its start; what a fresh start found is kept."""
    sets, config, progress = training.sets, training.config, training.progress
    trainer = PhaseTrainer(tuned=tuned, sets=sets, config=config, state=state, progress=progress)
    keep = functools.partial(_keep, trainer, training.files, None)
    fresh = not state.start and config.starts_from_probe
    if "val" not in sets:
        fresh = state.epoch == 0
        chose = cross_validate(training, tuned, state, keep)
        validation = functools.partial(held_out_record, state)
        trainer = replace(trainer, until=chose.best_epoch, validation=validation)
    elif fresh:
        start_from_probe(tuned, sets, config, state, progress)
    if config.rescale == "all" and not state.start_parameters:
        state.start_parameters = {name: v.clone() for name, v in tuned.state_dict().items()}
    if fresh:
        ended = not trainer.images_left(plan)
        keep(on_epoch if ended else None)
    return trainer


def _begin(training: Training, *, resume: bool) -> tuple[TrainState, dict[str, Tensor] | None]:
    """Where the training begins; and the checkpoint's tensors, if it goes on from one."""
    files = training.files
    if resume and files.checkpoint.exists():
        state, kept = load_checkpoint(files.checkpoint, training.identity)
        write_metrics(state, files)  # those before may lie on another machine
        return state, kept
    if leads():
        files.checkpoint.unlink(missing_ok=True)  # forced; only now that the input is good
    return TrainState(training.identity), None


def _keep_epoch(
    trainer: PhaseTrainer,
    files: RunFiles,
    on_epoch: Callable[[Path], None] | None,
    noted: Callable[[], None],
    phase: Phase,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Note the phase of an epoch, and keep it."""
    if phase.cycle:
        trainer.state.history[-1] |= {"cycle": phase.cycle, "part": phase.part}
    noted()
    _keep(trainer, files, optimizer, on_epoch)


def _note(log: EventLog | None, trainer: PhaseTrainer, plan: Sequence[Phase]) -> None:
    """What TensorBoard has not got yet."""
    if log is not None:
        rates = functools.partial(trainer.rates_after, plan)
        log.epochs(trainer.state.records, rates, several=trainer.config.task == MULTILABEL)


def _keep(
    trainer: PhaseTrainer,
    files: RunFiles,
    optimizer: torch.optim.Optimizer | None,
    on_epoch: Callable[[Path], None] | None = None,
) -> None:
    """Write metrics and checkpoint; of torchrun's processes the first does."""
    if not leads():
        return
    state = trainer.state
    write_metrics(state, files)
    save_checkpoint(files.checkpoint, trainer.tuned, optimizer, state)
    if on_epoch is not None:
        on_epoch(files.checkpoint)


def write_metrics(state: TrainState, files: RunFiles) -> None:
    """NAME.metrics.jsonl: the start and every epoch, one JSON object a line."""
    if not leads():
        return
    with atomic_file(files.metrics) as part:
        several = state.identity.get("config", {}).get("task") == MULTILABEL
        records = with_map_names(state.records) if several else state.records
        lines = [json.dumps(record, sort_keys=True) + "\n" for record in records]
        part.write_text("".join(lines))
