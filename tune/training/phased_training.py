"""A training from its first to its last phase: fresh or resumed, and the head once more."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from vptkit.atomic_files import atomic_file
from vptkit.errors import DataError
from vptkit.images.preprocess import normalize
from vptkit.tune.methods.tuned_model import Tuned, parameter_groups, wants_whitening
from vptkit.tune.methods.whitening import token_moments, whitening

from .checkpoint import load_checkpoint, restore_moments, restore_parameters, save_checkpoint
from .device import choose_device, place
from .distributed import leads
from .loop import evaluate, feature_batches, feature_evaluation, image_batches, train
from .optimizer_step import class_weights
from .phases import Phase, phases, stalled
from .train_state import TrainState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.progress import Progress
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.data.dataset import DataSet
    from vptkit.tune.methods.tuned_model import Part

    from .optimizer_step import Batch

__all__ = ["Paths", "refit_head", "train_phases", "whitened"]


class Paths(NamedTuple):
    """Files of a run: the adapter, and what lies beside it."""

    adapter: Path
    checkpoint: Path
    metrics: Path
    curves: Path

    def beside(self, ending: str) -> Path:
        """NAME.ending, in the adapter's folder."""
        return self.adapter.with_name(f"{self.adapter.stem}.{ending}")


def train_phases(
    backbone: Any,
    spec: BackboneSpec,
    sets: dict[str, DataSet],
    config: TuneConfig,
    identity: dict[str, Any],
    paths: Paths,
    resume: bool,
    progress: Progress,
    on_epoch: Callable[[Path], None] | None,
) -> tuple[Tuned, TrainState]:
    """Train every phase, from the beginning or from a checkpoint.

    Args:
        backbone, spec: the frozen timm model and its description.
        sets: train and val.
        config, identity: the run, and what a checkpoint must agree with.
        paths: where metrics and checkpoints go.
        resume: go on from the checkpoint, if there is one.
        progress: told about each step.
        on_epoch: called with the checkpoint after each epoch.

    Returns:
        the model as the last epoch left it, and the state that holds the best one.
    """
    kept: dict[str, Tensor] | None = None
    if resume and paths.checkpoint.exists():
        state, kept = load_checkpoint(paths.checkpoint, identity)
        _write_metrics(state, paths)  # those before may lie on another machine
    else:
        state = TrainState(identity)
        if leads():
            paths.checkpoint.unlink(missing_ok=True)  # forced; only now that the input is good
    matrices = None
    if wants_whitening(config):
        if kept is None:
            matrices, state.whitening = whitened(backbone, sets["train"], config)
        else:  # the checkpoint holds what became of them
            matrices = [torch.zeros(spec.width, spec.width)] * spec.depth
    tuned = Tuned(backbone, spec, config, len(identity["labels"]), matrices)
    if kept is not None:
        restore_parameters(tuned, kept)
    place(tuned, choose_device(config.device), config)
    plan = phases(config)
    left = functools.partial(_images_left, plan, state, config, len(sets["train"]))
    progress.total = (progress.total or 0) + left()
    after_epoch = functools.partial(_keep, tuned, state, paths, on_epoch)
    for phase in plan:
        if state.epoch >= phase.epochs.stop:
            continue
        if stalled(phase, state, config):
            break
        moments = kept if state.epoch > phase.epochs.start else None
        last = plan[-1].epochs.stop
        _train_phase(tuned, phase, sets, config, state, progress, after_epoch, last, moments)
    if skipped := left():  # patience and cycles may end a run early
        progress.total = (progress.total or 0) - skipped
        progress.update(0)
    return tuned, state


def _images_left(plan: Sequence[Phase], state: TrainState, config: TuneConfig, images: int) -> int:
    """How many training images the epochs show that are not done."""
    total = 0
    for phase in plan:
        steps = _steps(images, config, from_features=_from_features(phase.part, config))
        epochs = range(max(state.epoch, phase.epochs.start), phase.epochs.stop)
        total += min(images, steps * config.batch_size) * len(epochs)
    return total


def _keep(
    tuned: Tuned,
    state: TrainState,
    paths: Paths,
    on_epoch: Callable[[Path], None] | None,
    phase: Phase,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write metrics and checkpoint behind an epoch."""
    if phase.cycle:
        state.history[-1] |= {"cycle": phase.cycle, "part": phase.part}
    _write_metrics(state, paths)
    save_checkpoint(paths.checkpoint, tuned, optimizer, state)
    if on_epoch is not None:
        on_epoch(paths.checkpoint)


def _write_metrics(state: TrainState, paths: Paths) -> None:
    if not leads():
        return
    with atomic_file(paths.metrics) as part:
        lines = [json.dumps(record, sort_keys=True) + "\n" for record in state.history]
        part.write_text("".join(lines))


def _train_phase(
    tuned: Tuned,
    phase: Phase,
    sets: dict[str, DataSet],
    config: TuneConfig,
    state: TrainState,
    progress: Progress,
    after_epoch: Callable[[Phase, torch.optim.Optimizer], None],
    last: int,
    moments: dict[str, Tensor] | None = None,
) -> None:
    """From `state.epoch` to the end of the phase; `moments` if a run goes on in its middle.

    `last` is the run's last epoch.
    """
    tuned.learn(phase.part)
    optimizer = torch.optim.AdamW(parameter_groups(tuned, config, phase.part))
    if moments is not None:
        restore_moments(optimizer, moments)
    from_features = _from_features(phase.part, config)
    batches, steps, validation = _data(tuned, sets, config, from_features=from_features)
    train(
        tuned,
        optimizer,
        batches,
        steps,
        validation,
        config,
        state,
        from_features=from_features,
        progress=progress,
        after_epoch=lambda: after_epoch(phase, optimizer),
        epochs=phase.epochs,
        last=last,
        weights=class_weights(config, sets["train"].split.targets, tuned.head.out_features),
    )


def _from_features(part: Part, config: TuneConfig) -> bool:
    """Whether only the head learns, from features that stay the same."""
    return (part == "head" or config.method == "linear") and config.augment != "crop"


def _steps(images: int, config: TuneConfig, *, from_features: bool) -> int:
    """Of an epoch. Of images a last batch of less than half the size is dropped, of features none."""
    full, rest = divmod(images, config.batch_size)
    if from_features:
        return full + bool(rest)
    return max(full + (2 * rest >= config.batch_size), 1)


def _data(
    tuned: Tuned, sets: dict[str, DataSet], config: TuneConfig, *, from_features: bool
) -> tuple[Callable[[int], Iterator[Batch]], int, Callable[[], tuple[float, float]]]:
    """Batches of an epoch, how many there are, and the measurement on val that closes it."""
    train, val = sets["train"], sets["val"]
    steps = _steps(len(train), config, from_features=from_features)
    if from_features:
        validation = feature_evaluation(tuned, val, config)
        return feature_batches(tuned, train, config), steps, validation
    return (
        image_batches(train, config),
        steps,
        lambda: evaluate(tuned, val, config.batch_size),
    )


def refit_head(
    tuned: Tuned, sets: dict[str, DataSet], config: TuneConfig, progress: Progress
) -> float:
    """Train the head again behind the scaled norms; keep it only if val gains. Its accuracy."""
    before = evaluate(tuned, sets["val"], config.batch_size)
    kept = {name: value.clone() for name, value in tuned.state_dict().items()}
    state, phase = TrainState({}), Phase("head", range(config.refit_epochs))
    left = functools.partial(_images_left, (phase,), state, config, len(sets["train"]))
    progress.total = (progress.total or 0) + left()
    _train_phase(tuned, phase, sets, config, state, progress, lambda *_: None, config.refit_epochs)
    progress.total = (progress.total or 0) - left()
    record = state.history[state.best_epoch - 1]
    gains = (record["val_top1"], -record["val_loss"]) > (before[0], -before[1])
    tuned.load_state_dict(state.best if gains else kept)
    return float(record["val_top1"] if gains else before[0])


def whitened(
    backbone: Any, data: DataSet, config: TuneConfig
) -> tuple[list[Tensor], list[dict[str, float]]]:
    """W for each block from random training images (evaluation transform, no prompts)."""
    count = min(config.whiten_images, len(data))
    chosen = np.sort(np.random.default_rng([config.seed, 1]).permutation(len(data))[:count])

    def batches() -> Iterator[Tensor]:
        for part in np.array_split(chosen, max(1, count // 16)):
            images = data.prepared(part)
            yield torch.from_numpy(normalize(images, data.preprocess))

    released = config.compat == "released"
    shallow = config.insert == "shallow"
    moments = token_moments(backbone, batches(), config.tap)
    results = [
        whitening(
            block.attn,
            moment,
            form="released" if released else "attention",
            floor=config.whiten_floor,
            same_query_key=released and shallow,
        )
        for block, moment in zip(backbone.blocks, moments, strict=True)
    ]
    results = results[:1] if shallow else results
    if not all(torch.isfinite(result.matrix).all() for result in results):
        raise DataError("whitening failed: the tokens of the training images are degenerate")
    return [result.matrix for result in results], [result.to_json() for result in results]
