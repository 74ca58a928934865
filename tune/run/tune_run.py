"""`tune`: from a folder of images and a timm backbone to an adapter file, in four steps.

Load (`load_run`), train (`vptkit.tune.phases.phased_training`), choose (`choose_on_val`), write
(`write_run`). What goes from step to step: `RunRequest`, what is asked; `RunInputs`, data and
backbone; `Trained`, the model and its best epoch; `Chosen`, what val chose.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vptkit.errors import VptkitError
from vptkit.formats.manifest_schema import MULTILABEL
from vptkit.progress import SILENT, begin_phase
from vptkit.tune.phases.judge_training import judge_training
from vptkit.tune.phases.new_model import Training
from vptkit.tune.phases.phased_training import train_phases
from vptkit.tune.training.device import choose_device, describe_device, repeatable
from vptkit.tune.training.distributed import joined, leads
from vptkit.tune.training.event_log import require_tensorboard
from vptkit.tune.training.run_files import run_files
from vptkit.tune.training_page.hardest_images import hardest_images
from vptkit.tune.training_page.run_pictures import require_drawing

from .choose_on_val import (
    choose_on_val,
    judged_labels,
    temper,
    top1_on,
    unseen_logits,
    unseen_places,
)
from .finished_run import finished_record, finished_result
from .full_data_run import fsr_proxy, full_config, full_output, require_full_data
from .load_run import RunRequest, load_run, read_images, require_val
from .write_run import write_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.progress import Progress
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.phases.phased_training import Trained
    from vptkit.tune.training.train_state import CrossValidation, TrainState

    from .choose_on_val import Chosen
    from .load_run import RunInputs
    from .run_result import TuneResult

__all__ = ["choose", "requested", "train", "tune", "tune_full"]


def tune(
    data: Path,
    output: Path,
    config: TuneConfig,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
    test: bool = True,
    on_epoch: Callable[[Path], None] | None = None,
    full: TuneResult | None = None,
) -> TuneResult:
    """Tune, choose the best epoch on val, report test once, write the adapter.

    Without val, or with one too small, cross-validation chooses
    (`vptkit.tune.phases.cross_validation`).

    Beside the adapter NAME.safetensors lie NAME.metrics.jsonl and the page NAME.html, or pictures
    (`TuneConfig.pictures`); while the training runs, NAME.checkpoint.safetensors; with `full_data`, the
    same of NAME.full.safetensors. The processes of torchrun train as one
    (`vptkit.tune.training.distributed`); the first alone writes, and reports progress.

    Args:
        data: see `vptkit.tune.data.dataset_reader.read_splits`.
        output: where the adapter goes, ending in .safetensors.
        config: every setting.
        resume: go on from the checkpoint, if there is one. Without one, of an adapter that is there
            already, of the same settings, data and weights, the result is returned.
        force: replace an existing adapter, forget an existing checkpoint.
        progress: told about each step.
        test: also measure on test and ood; off, their results are None, and nobody looks for images
            in two splits.
        on_epoch: called with the checkpoint after each epoch; what it raises ends the run there,
            and the checkpoint stays.
        full: of `tune_full`; without it, a run with `full_data` calls that behind its own training.

    Raises:
        VptkitError: bad input; every message says what to do.
    """
    if config.method == "auto":
        raise VptkitError("method auto is for vptkit.tune.tune: each run here is of one method")
    asked = {"resume": resume, "force": force, "test": test}
    with requested(data, output, config, progress, **asked) as request:
        inputs = load_run(request)
        if inputs.finished:
            return finished_result(request, inputs)
        _refuse(request, inputs, full)
        inputs = read_images(request, inputs)
        trained = train(request, inputs, on_epoch)
        chosen = choose(request, inputs, trained, full)
        return write_run(request, inputs, trained, chosen)


@contextlib.contextmanager
def requested(
    data: Path,
    output: Path,
    config: TuneConfig,
    progress: Progress,
    *,
    resume: bool,
    force: bool,
    test: bool,
) -> Iterator[RunRequest]:
    """The device is chosen and the processes have met while the block runs.

    Args:
        data, output, config, progress, resume, force, test: of `tune`.

    Raises:
        VptkitError: the device is not there, or the name of the output ends otherwise.
    """
    require_drawing(config.pictures)
    if config.tensorboard is not None:
        require_tensorboard()
    device = choose_device(config.device)
    with joined(device), repeatable(device):
        bar = progress if leads() else SILENT
        bar.update(0, f"on {describe_device(device)}")
        yield RunRequest(
            data=data,
            files=run_files(output),
            config=config,
            resume=resume,
            force=force,
            test=test,
            progress=bar,
            begun=time.perf_counter(),
        )


def tune_full(
    config: TuneConfig,
    output: Path,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
) -> TuneResult:
    """Tune on the full set of a run, for its FSR proxy.

    Args:
        config: of the run, with `full_data`.
        output: of the run, NAME.safetensors; the adapter becomes NAME.full.safetensors.
        resume, force, progress: of `tune`.

    Raises:
        VptkitError: as of `tune`.
    """
    assert config.full_data is not None  # noqa: S101 - the caller asked
    path, settings = full_output(output), full_config(config)
    return tune(config.full_data, path, settings, resume=resume, force=force, progress=progress)


def _refuse(request: RunRequest, inputs: RunInputs, full: TuneResult | None) -> None:
    """Refuse before the training what would fail behind it."""
    if inputs.there:
        finished_record(request.files.adapter, inputs.identity, request.config)
    if request.config.full_data is not None and full is None:
        require_full_data(request, inputs)
    require_val(inputs.splits, request.config)


def train(
    request: RunRequest,
    inputs: RunInputs,
    on_epoch: Callable[[Path], None] | None = None,
    enough: Callable[[TrainState], bool] = lambda _: False,
) -> Trained:
    """Every epoch; the state keeps the parameters of the best one.

    Args:
        request, inputs: of the run.
        on_epoch, enough: of `vptkit.tune.phases.phased_training.train_phases`.
    """
    training = Training(
        backbone=inputs.backbone,
        spec=inputs.spec,
        sets=inputs.sets,
        config=request.config,
        identity=inputs.identity,
        files=request.files,
        progress=request.progress,
        log=request.log(),
    )
    try:
        return train_phases(training, resume=request.resume, on_epoch=on_epoch, enough=enough)
    finally:
        if training.log is not None:
            training.log.close()


def choose(
    request: RunRequest, inputs: RunInputs, trained: Trained, full: TuneResult | None = None
) -> Chosen:
    """All that val chooses, and whether anything was learned; then the full set's training, for the proxy; then test and ood.

    Args:
        request, inputs: of the run.
        trained: its model is left with what was chosen.
        full: of `tune`.

    Raises:
        TrainingError: nothing was learned; the checkpoint stays.
    """
    config, sets, bar = request.config, inputs.sets, request.progress
    begin_phase(bar, "choosing")
    chosen = choose_on_val(trained, sets, config, bar)
    held = trained.state.cross_validation
    judges = unseen_logits(trained.model, sets, config, held)
    warnings = inputs.warnings(request.data)
    warnings += judge_training(trained.state, judges, inputs.labels, config, request.files)
    confidence = temper(trained.model, sets, config, held, judges)
    chosen = replace(chosen, confidence=confidence, warnings=warnings)
    temperature = 1.0 if confidence is None else confidence["temperature"]
    tempered = judges[0] / np.float32(temperature), judges[1]
    if config.task == MULTILABEL:
        begin_phase(bar, "testing")
        found = judged_labels(trained.model, sets, config, inputs.labels, tempered)
        chosen = replace(chosen, thresholds=found[0], multilabel=found[1])
        return _with_hardest(request, inputs, chosen, tempered[0], held)
    chosen = replace(chosen, by_class=_by_class(inputs.labels, *judges))
    chosen = _with_hardest(request, inputs, chosen, tempered[0], held)
    if config.full_data is not None:
        output, resume, force = request.files.adapter, request.resume, request.force
        full = full or tune_full(config, output, resume=resume, force=force, progress=bar)
        norms = chosen.layer_norms or {}
        chosen = replace(chosen, layer_norms={**norms, "fsr_proxy": fsr_proxy(norms, full)})
    begin_phase(bar, "testing")
    test, ood = (top1_on(split, trained.model, sets, config) for split in ("test", "ood"))
    return replace(chosen, test_top1=test, ood_top1=ood)


def _with_hardest(
    request: RunRequest,
    inputs: RunInputs,
    chosen: Chosen,
    logits: NDArray[np.float32],
    held: CrossValidation | None,
) -> Chosen:
    """How many images judged, and those that are the hardest, if there shall be a page."""
    split, places = unseen_places(inputs.sets, request.config, held)
    found = replace(chosen, judges=len(places))
    if request.config.pictures != "page" or not len(logits):
        return found
    hardest = hardest_images(request.data, split, places, logits, inputs.labels, chosen.thresholds)
    return replace(found, hardest=hardest)


def _by_class(
    labels: Sequence[str], logits: NDArray[np.float32], targets: NDArray[np.int64]
) -> dict[str, int]:
    """Class → right answers."""
    if not len(targets):
        return {}
    right = logits.argmax(axis=1) == targets
    counts = np.bincount(targets, weights=right, minlength=len(labels))
    return {label: int(count) for label, count in zip(labels, counts, strict=True)}
