"""A training from its first to its last phase, fresh or gone on with from a checkpoint."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from vptkit.atomic_files import atomic_file
from vptkit.tune.methods.tuned_model import Tuned, wants_whitening
from vptkit.tune.training.checkpoint import load_checkpoint, restore_parameters, save_checkpoint
from vptkit.tune.training.device import choose_device, place
from vptkit.tune.training.distributed import leads
from vptkit.tune.training.train_state import TrainState

from .phase_plan import phases, stalled
from .phase_trainer import PhaseTrainer
from .probe_start import start_from_probe
from .whiten_from_images import whitening_matrices

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.progress import Progress
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.data.dataset import DataSet
    from vptkit.tune.training.run_files import RunFiles

    from .phase_plan import Phase

__all__ = ["Trained", "Training", "train_phases", "write_metrics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What a training is made of.

    Attributes:
        backbone, spec: the frozen timm model and its description.
        sets: train and val.
        config, identity: the run, and what a checkpoint must agree with.
        files: where metrics and checkpoints go.
        progress: told about each step.
    """

    backbone: Any
    spec: BackboneSpec
    sets: Mapping[str, DataSet]
    config: TuneConfig
    identity: dict[str, Any]
    files: RunFiles
    progress: Progress


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
        VptkitError: the loss is not finite any more; the pool does not fit the backbone.
    """
    config, progress = training.config, training.progress
    state, kept = _begin(training, resume=resume)
    tuned = _model(training, state, kept)
    plan = phases(config)
    trainer = PhaseTrainer(
        tuned=tuned, sets=training.sets, config=config, state=state, progress=progress
    )
    _start(trainer, training.files, on_epoch if not plan else None)
    progress.total = (progress.total or 0) + trainer.images_left(plan)
    after_epoch = functools.partial(_keep_epoch, trainer, training.files, on_epoch)
    for phase in plan:
        if state.epoch >= phase.epochs.stop:
            continue
        if stalled(phase, state, config):
            break
        moments = kept if state.epoch > phase.epochs.start else None
        last = plan[-1].epochs.stop
        trainer.train(phase, last=last, after_epoch=after_epoch, moments=moments, enough=enough)
    if skipped := trainer.images_left(plan):  # patience and cycles may end a run early
        progress.total = (progress.total or 0) - skipped
        progress.update(0)
    return Trained(tuned, state)


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


def _model(training: Training, state: TrainState, kept: dict[str, Tensor] | None) -> Tuned:
    """The model as the training begins with it, where it is trained."""
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


def _start(trainer: PhaseTrainer, files: RunFiles, on_epoch: Callable[[Path], None] | None) -> None:
    """The state before the first epoch, unless a checkpoint had it: the probe, the line's start."""
    tuned, config, state = trainer.tuned, trainer.config, trainer.state
    probed = config.starts_from_probe and not state.start
    if probed:
        start_from_probe(tuned, trainer.sets, config, state, trainer.progress)
    if config.rescale == "all" and not state.start_parameters:
        state.start_parameters = {name: v.clone() for name, v in tuned.state_dict().items()}
    if probed and leads():
        _keep(trainer, files, None, on_epoch)


def _keep_epoch(
    trainer: PhaseTrainer,
    files: RunFiles,
    on_epoch: Callable[[Path], None] | None,
    phase: Phase,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Note the phase of an epoch, and keep it."""
    if phase.cycle:
        trainer.state.history[-1] |= {"cycle": phase.cycle, "part": phase.part}
    _keep(trainer, files, optimizer, on_epoch)


def _keep(
    trainer: PhaseTrainer,
    files: RunFiles,
    optimizer: torch.optim.Optimizer | None,
    on_epoch: Callable[[Path], None] | None,
) -> None:
    """Write metrics and checkpoint."""
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
        lines = [json.dumps(record, sort_keys=True) + "\n" for record in state.records]
        part.write_text("".join(lines))
