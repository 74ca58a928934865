"""A run of `--method auto`: the probe, candidates by halving, a decision, and one ordinary adapter.

What the candidates learn lies in the hidden folder .NAME.auto beside the adapter NAME.safetensors
until that is written: a killed run goes on with --resume.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vptkit.errors import OutputError, VptkitError
from vptkit.formats.adapter import read_adapter
from vptkit.scores.probabilities import log_losses
from vptkit.scores.temperature import fit_temperature
from vptkit.text_table import columns
from vptkit.tune.phases.phased_training import Trained, write_metrics
from vptkit.tune.run.choose_on_val import unseen_logits
from vptkit.tune.run.finished_run import finished_result
from vptkit.tune.run.load_run import load_run, read_images
from vptkit.tune.run.tune_run import choose, train
from vptkit.tune.run.write_run import write_run
from vptkit.tune.training.distributed import share
from vptkit.tune.training.event_log import require_no_log
from vptkit.tune.training.run_files import run_files

from .budget import budget_of
from .candidates import NAMES, PROBE, candidates
from .halving import best_by_halving, best_of_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.tune.run.load_run import RunInputs, RunRequest
    from vptkit.tune.run.run_result import TuneResult
    from vptkit.tune.training.train_state import TrainState

    from .budget import Budget

__all__ = ["tried_table", "tune_auto"]


class _Contender(NamedTuple):
    """A candidate when its training is over.

    Attributes:
        name: of `candidates`.
        request, inputs: its own: method, files, identity.
        trained: its model and its best epoch.
    """

    name: str
    request: RunRequest
    inputs: RunInputs
    trained: Trained


def tune_auto(request: RunRequest) -> TuneResult:
    """Try the candidates, keep the best, or the probe; write its adapter.

    Args:
        request: its config has method "auto".

    Raises:
        OutputError: files are there that the run would overwrite.
        VptkitError: as of `vptkit.tune.run.tune_run.tune`; or torchrun started several processes.
    """
    if share()[1] > 1:
        raise VptkitError(
            "method auto is for one process: pass --method to train one with torchrun"
        )
    budget, folder = budget_of(request.config.budget), _folder(request)
    inputs = load_run(request)
    if inputs.finished:
        return _finished(request, inputs)
    _require_no_logs(request)
    inputs = read_images(request, inputs)
    if request.force and not request.resume:
        _remove(folder)
    folder.mkdir(exist_ok=True)
    search = _Search(request, inputs, budget, folder)
    best = search.run()
    result = search.write(best)
    _remove(folder)
    return result


class _Search:
    """The candidates of one run."""

    def __init__(
        self, request: RunRequest, inputs: RunInputs, budget: Budget, folder: Path
    ) -> None:
        """Nothing is trained yet."""
        self._request, self._inputs, self._budget, self._folder = request, inputs, budget, folder
        self._configs = candidates(request.config)
        self._rows: dict[str, dict[str, Any]] = {}

    def run(self) -> _Contender:
        """The candidate that is kept."""
        probe = self._train(PROBE, 0)
        if self._rows[PROBE]["val_loss"] is None:  # one image a class: nothing can be compared
            return probe
        names = [name for name in self._configs if name != PROBE]
        found: dict[str, _Contender] = {}

        def loss_of(name: str, epochs: int) -> float:
            found[name] = self._train(name, epochs)
            return float(self._rows[name]["val_loss"])

        def simplest(names: Sequence[str]) -> str:
            return self._simplest([found[name] for name in names])

        search = best_by_halving if "val" in self._inputs.sets else best_of_all
        best = search(names, self._request.config.epochs, self._budget, loss_of, simplest)
        if best not in found:  # the budget was over before the first epoch
            return probe
        better = _beats(self._losses(found[best]), self._losses(probe))
        return found[best] if better else probe

    def _train(self, name: str, epochs: int) -> _Contender:
        """Train a candidate up to an epoch, from where it was left."""
        config = self._configs[name]
        log = self._request.config.tensorboard
        config = replace(config, tensorboard=None if log is None else log / name)
        files = run_files(self._folder / f"{name}.safetensors")
        request = replace(self._request, config=config, files=files, resume=True)
        inputs = replace(
            self._inputs, identity={**self._inputs.identity, "config": config.to_json()}
        )
        begun, before = time.perf_counter(), self._rows.get(name, {}).get("seconds", 0.0)

        def enough(state: TrainState) -> bool:
            # without val it is the whole training that was judged, in parts: it is not cut short
            return state.epoch >= epochs or (self._budget.over and "val" in self._inputs.sets)

        count = None if name == PROBE else lambda _: self._budget.spend()
        trained = train(request, inputs, count, enough)
        record = trained.state.best_record
        assert record is not None  # noqa: S101 - every candidate begins with the probe
        self._rows[name] = {
            "method": name,
            "epochs": trained.state.epoch,
            "best_epoch": trained.state.best_epoch,
            "val_loss": record["val_loss"],
            "val_top1": record["val_top1"],
            "numbers": trained.model.trainable()[1],
            "seconds": round(before + time.perf_counter() - begun, 2),
            "losses": _losses_by_epoch(trained.state),
        }
        return _Contender(name, request, inputs, trained)

    def _simplest(self, contenders: Sequence[_Contender]) -> str:
        """The first of `candidates` that the best of these does not beat."""
        losses = {one.name: self._losses(one) for one in contenders}
        best = min(losses.values(), key=lambda values: float(values.mean()))
        level = [n for n, own in losses.items() if own is best or not _beats(best, own)]
        return next(name for name in self._configs if name in level)

    def _losses(self, contender: _Contender) -> NDArray[np.float64]:
        """Log-loss of each image of val (or as it was held out), with the temperature that the adapter would have."""
        model, state = contender.trained
        model.load_state_dict(state.best)
        logits, targets = unseen_logits(
            model, self._inputs.sets, self._request.config, state.cross_validation
        )
        fitted = fit_temperature(logits, targets)
        factor = 1.0 if fitted is None else 1 / fitted.temperature
        return log_losses(logits.astype(np.float64) * factor, targets)

    def write(self, best: _Contender) -> TuneResult:
        """The adapter of the one that is kept, under the name that was asked for."""
        chosen = choose(best.request, best.inputs, best.trained)
        request = replace(best.request, files=self._request.files)
        write_metrics(best.trained.state, request.files)
        tried = {
            "config": self._request.config.to_json(),
            "kept": best.name,
            "tried": [self._rows[name] for name in self._configs if name in self._rows],
        }
        return write_run(request, best.inputs, best.trained, chosen, auto=tried)


def _losses_by_epoch(state: TrainState) -> list[list[float | None]]:
    """[epoch, log-loss on val, or of what was held out], from the probe on."""
    held = state.cross_validation
    records = state.records if held is None else held.records
    return [[record["epoch"], record["val_loss"]] for record in records]


def _beats(better: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether losses of the same images, [images], are lower by more than one standard error."""
    gains = other - better
    return bool(gains.mean() > gains.std() / math.sqrt(len(gains)))


def tried_table(auto: Mapping[str, Any], width: int | None = None) -> str:
    """What was tried, as people read it; the kept one has a star.

    Args:
        auto: of `TuneResult.auto`.
        width: of `vptkit.text_table.columns`.
    """
    several = any("val_map" in row for row in auto["tried"])
    score, told = ("val_map", "val mAP") if several else ("val_top1", "val top-1")
    header = ["tried", "epochs", "val log-loss", told, "learned numbers", "seconds"]
    rows = [
        [
            f"{row['method']}{' *' if row['method'] == auto['kept'] else ''}",
            str(row["epochs"]),
            *("-" if row[key] is None else f"{row[key]:.4f}" for key in ("val_loss", score)),
            f"{row['numbers']:,}",
            f"{row['seconds']:.0f}",
        ]
        for row in auto["tried"]
    ]
    return columns(header, rows, width=width)


def _require_no_logs(request: RunRequest) -> None:
    """Every candidate logs in a folder of its own.

    Raises:
        OutputError: one of them is another run's.
    """
    log = request.config.tensorboard
    if log is not None:
        folders = [log / name for name in candidates(request.config)]
        require_no_log(folders, resume=request.resume, force=request.force)


def _folder(request: RunRequest) -> Path:
    """Where the candidates lie; refused where one is there that nobody asked to go on with.

    Raises:
        OutputError: an interrupted run is there, or something else of this name.
    """
    adapter = request.files.adapter
    folder = adapter.with_name(f".{adapter.stem}.auto")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutputError(f"{folder}: not a folder of vptkit's. Remove it, or choose another name.")
    if folder.exists() and not request.resume and not request.force:
        raise OutputError(
            f"{folder}: a run of this name was interrupted. Pass --resume to finish it, or --force "
            "to start anew."
        )
    return folder


def _remove(folder: Path) -> None:
    """Remove the candidates' own files, and the folder if nothing else lies in it."""
    for name in NAMES:
        files = run_files(folder / f"{name}.safetensors")
        files.checkpoint.unlink(missing_ok=True)
        files.metrics.unlink(missing_ok=True)
        files.remove_dead_parts()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _finished(request: RunRequest, inputs: RunInputs) -> TuneResult:
    """The result of a run that is over, as it was returned then.

    Raises:
        OutputError: the adapter is of other settings, data or weights.
    """
    record = read_adapter(request.files.adapter).train.get("auto") or {}
    if record.get("config") != request.config.to_json():
        raise OutputError(
            f"{request.files.adapter}: exists already, not of this run of method auto. Pass --force "
            "to replace it, or choose another name."
        )
    config = candidates(request.config)[record["kept"]]
    identity = {**inputs.identity, "config": config.to_json()}
    return finished_result(replace(request, config=config), replace(inputs, identity=identity))
