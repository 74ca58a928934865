"""Trials on Ray Tune: on this machine, or on a cluster.

Ray places the trials, notices that a worker or a node has died and starts the trial again
elsewhere from the checkpoint that lies in the storage. What became of the trials stands in our own
book, not in Ray's experiment state (`Tuner.restore`): that one leaves out what the scheduler has
seen, so that pruning would begin anew, is written only now and then, and is pickled. A sweep that
goes on is therefore a new Ray run over the trials that are left, which start from their
checkpoints; the scheduler is told again what the earlier runs had reported.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import ray
import ray.tune
import torch
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from vptkit.cluster.cluster_address import require_address
from vptkit.cluster.connection import connected, living_nodes
from vptkit.cluster.quiet_ray import quiet
from vptkit.errors import MissingError, OutputError, TargetError, VptkitError

from .trial import CHECKPOINT, record_of, run_trial

if TYPE_CHECKING:
    from collections.abc import Callable

    from .search_space import Search, Sweep
    from .trial_store import Book, Trial

__all__ = ["RayRunner"]

# Ray Tune shall not talk, or write a second set of logs.
_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table even if it is told to be quiet
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that fails reports no accuracy
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


class RayRunner:
    """Runs the trials of a sweep."""

    def __init__(
        self, *, address: str | None = None, storage: str | None = None, cpus: int | None = None
    ) -> None:
        """Nothing is started yet.

        Args:
            address: HOST:PORT of a cluster that this machine belongs to, or "auto"; None: Ray is
                started here, and ended afterwards.
            storage: folder or URI, as s3://BUCKET/FOLDER, that every node reaches, for checkpoints;
                None: the folder ray/ of the sweep.
            cpus: of this machine, if Ray is started here; None: all.

        Raises:
            VptkitError: no such address (`vptkit.cluster.cluster_address.require_address`).
        """
        if address is not None:
            require_address(address)
        self._address, self._cpus = address, cpus
        self._storage = storage if storage is None or "://" in storage else _absolute(storage)

    def run(self, sweep: Sweep, book: Book) -> None:
        """Run every trial that is not over.

        Raises:
            MissingError: no cluster answers.
            TargetError: no node has what a trial asks for, or trials ask for no GPU that is there.
            OutputError: the storage cannot be written.
            KeyboardInterrupt: trials were stopped; the book is in order.
        """
        storage = self._place(book)
        _require_storage(storage)
        with quiet(_ENVIRONMENT), connected(self._address, self._cpus):
            _require_room(sweep)
            starts = {
                trial.number: f"{storage}/{trial.checkpoint}" if trial.checkpoint else None
                for trial in book.pending()
            }
            tuner = ray.tune.Tuner(
                ray.tune.with_resources(
                    _trainable(sweep, starts),
                    {"cpu": sweep.search.cpus, "gpu": sweep.search.gpus},
                ),
                param_space={"number": ray.tune.grid_search(list(starts))},
                tune_config=ray.tune.TuneConfig(
                    scheduler=_Pruning(book, sweep.search)
                    if sweep.search.pruning
                    else FIFOScheduler(),
                    max_concurrent_trials=sweep.search.parallel,
                    reuse_actors=True,  # a worker imports torch once, not for each trial
                    trial_name_creator=_name,
                    trial_dirname_creator=_name,
                ),
                run_config=ray.tune.RunConfig(
                    name=f"run-{uuid.uuid4().hex}",  # other sweeps may share the storage
                    storage_path=storage,
                    verbose=0,
                    callbacks=[_Scribe(book)],
                    # Two: the book may name the last but one when the driver is killed.
                    checkpoint_config=ray.tune.CheckpointConfig(num_to_keep=2),
                    failure_config=ray.tune.FailureConfig(max_failures=sweep.search.retries),
                ),
            )
            tuner.fit()
            if any(trial.state in ("waiting", "running") for trial in book.trials):
                raise KeyboardInterrupt  # Ray took it, and ended its loop in good order

    def fetch(self, book: Book, trial: Trial, target: Path) -> Path:
        """Copy a trial's last checkpoint into a folder of this machine; the file.

        Raises:
            MissingError: the storage does not hold it any more.
        """
        source = f"{self._place(book)}/{trial.checkpoint}"
        try:
            ray.tune.Checkpoint(source).to_directory(target)
        except (OSError, ValueError) as error:
            raise MissingError(
                f"{source}: the checkpoint of trial {trial.number} cannot be read: {error}. "
                "Pass the --storage that the sweep ran with."
            ) from error
        return target / CHECKPOINT

    def _place(self, book: Book) -> str:
        return (self._storage or _absolute(book.folder / "ray")).rstrip("/")


def _trainable(sweep: Sweep, starts: dict[int, str | None]) -> Callable[[dict[str, Any]], None]:
    """What a worker runs; travels there by value, vptkit itself must be installed there."""
    data, threads = sweep.data, max(1, int(sweep.search.cpus))
    settings = {number: sweep.settings(number) for number in starts}

    def trial(config: dict[str, Any]) -> None:
        number = config["number"]
        torch.set_num_threads(threads)
        _in_worker(data, settings[number], starts[number])

    return trial


def _in_worker(data: Path, settings: dict[str, Any], start: str | None) -> None:
    """One trial, in a worker: from Ray's checkpoint if it was started again, else from `start`."""
    node = ray.get_runtime_context().get_node_id()
    with tempfile.TemporaryDirectory(prefix="vptkit-start-") as folder:
        file = _fetched(ray.tune.get_checkpoint(), start, Path(folder))
        about = {"node": node, "began": 0 if file is None else record_of(file)["epoch"]}

        def report(record: dict[str, Any], checkpoint: Path | None) -> None:
            seen = {key: record[key] for key in ("epoch", "best_loss")}  # by the scheduler
            result = {**seen, "record": {**record, **about}}
            if checkpoint is None:
                ray.tune.report(result)
                return
            with tempfile.TemporaryDirectory(prefix="vptkit-report-") as parcel:
                shutil.copyfile(checkpoint, Path(parcel) / CHECKPOINT)
                ray.tune.report(result, checkpoint=ray.tune.Checkpoint.from_directory(parcel))

        try:
            run_trial(data, settings, file, report)
        except VptkitError as error:
            if type(error) is not VptkitError:
                raise  # files, a device, a full disk: another worker, or a later one, may have them
            # The settings: they would fail again.
            ray.tune.report({"failed": " ".join(str(error).split())})


def _fetched(checkpoint: Any, start: str | None, folder: Path) -> Path | None:
    if checkpoint is None and start is None:
        return None
    try:
        (checkpoint or ray.tune.Checkpoint(start)).to_directory(folder)
    except FileNotFoundError:
        return None  # gone: from the beginning then, which leads to the same
    return folder / CHECKPOINT if (folder / CHECKPOINT).is_file() else None


class _Pruning(ASHAScheduler):  # type: ignore[misc]  # Ray has no types
    """Asynchronous successive halving that knows what earlier runs of the sweep have reported."""

    def __init__(self, book: Book, search: Search) -> None:
        longest = max(1, *(trial.epochs for trial in book.trials))  # of probes alone there are none
        super().__init__(
            time_attr="epoch",
            metric="best_loss",
            mode="min",
            max_t=longest + 1,
            grace_period=min(search.grace, longest),
            reduction_factor=search.reduction,
        )
        self._epochs = {t.number: t.epochs for t in book.trials}
        self._histories = {t.number: list(t.history) for t in book.trials if t.pending}
        for trial in book.trials:
            if not trial.pending:
                ghost = SimpleNamespace(trial_id=f"over-{trial.number}")
                super().on_trial_add(None, ghost)
                self._replay(ghost, trial.history)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial comes in: its rungs of earlier runs count."""
        super().on_trial_add(tune_controller, trial)
        self._replay(trial, self._histories[trial.config["number"]])

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether the trial goes on; after its last epoch there is nothing left to save."""
        if result.get("epoch", 0) >= self._epochs[_number(trial)]:
            return str(self.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, result))

    def _replay(self, trial: Any, history: list[dict[str, Any]]) -> None:
        for record in history:
            super().on_trial_result(None, trial, record)


class _Scribe(ray.tune.Callback):  # type: ignore[misc]  # Ray has no types
    """Writes down what Ray hears of the trials."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._failed: dict[int, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray stores its callbacks, to restore them in a way that is not ours."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch, or the reason why there are none."""
        if "failed" in result:
            self._failed[_number(trial)] = result["failed"]
            return
        self._book.result(_number(trial), result["record"])

    def on_checkpoint(
        self, iteration: int, trials: Any, trial: Any, checkpoint: Any, **info: Any
    ) -> None:
        """A checkpoint is in the storage: RUN/TRIAL/CHECKPOINT below it."""
        self._book.checkpoint(_number(trial), "/".join(Path(checkpoint.path).parts[-3:]))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """It returned, or was stopped by the scheduler."""
        number = _number(trial)
        history = self._book.trials[number].history
        if number in self._failed:
            self._book.end(number, "failed", self._failed[number])
        elif history and history[-1]["finished"]:
            self._book.end(number, "finished")
        else:
            self._book.end(number, "pruned")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Its worker failed once more than it may."""
        error = trial.get_error()
        lines = str(error).strip().splitlines() or ["its worker died"]
        self._book.end(_number(trial), "lost", lines[-1][:300])


def _number(trial: Any) -> int:
    return int(trial.config["number"])


def _name(trial: Any) -> str:
    return f"trial-{_number(trial):04d}"


def _absolute(path: str | Path) -> str:
    return str(Path(path).absolute())


def _require_room(sweep: Sweep) -> None:
    """Ray would wait for ever for a node that is large enough."""
    search = sweep.search
    nodes = [node["Resources"] for node in living_nodes()]
    if not search.gpus and "device" not in {**sweep.fixed, **sweep.space}:
        there = sum(node.get("GPU", 0) for node in nodes)
        if there:
            # Ray may hide them from a trial or let all trials at them at once, by its version.
            raise TargetError(
                f"[search] gpus is 0, but {there:g} are there. Set gpus to what a trial shall have "
                '(as 1, or 0.25 for four trials on each), or device = "cpu" in [tune].'
            )
    for node in nodes:
        if node.get("CPU", 0) >= search.cpus and node.get("GPU", 0) >= search.gpus:
            return
    have = ", ".join(f"{n.get('CPU', 0):g} CPU {n.get('GPU', 0):g} GPU" for n in nodes)
    raise TargetError(
        f"[search] a trial asks for {search.cpus:g} CPUs and {search.gpus:g} GPUs; no node has "
        f"them ({have}). Lower cpus or gpus."
    )


def _require_storage(storage: str) -> None:
    """Find out before the trials what would end them."""
    try:
        place = ray.tune.Checkpoint(storage)  # Ray's own reading of a folder or URI
        place.filesystem.create_dir(place.path)
        mark = f"{place.path}/.vptkit-{uuid.uuid4().hex}"  # a name that nobody can have taken
        place.filesystem.open_output_stream(mark).close()
        place.filesystem.delete_file(mark)
    except (ImportError, NotImplementedError, OSError, ValueError) as error:
        raise OutputError(
            f"{storage}: checkpoints cannot be stored there: {error}. Pass another --storage."
        ) from error
