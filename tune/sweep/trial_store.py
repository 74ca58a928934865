"""The book of a sweep: what became of each trial, on disk at every moment.

FOLDER/sweep.json says which sweep it is, FOLDER/trials/0003.json how far trial 3 has come. The
files are replaced whole, after every epoch, so that a driver killed at any moment loses nothing
that had been reported to it; and they are plain JSON, for whoever wants to look.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_file
from vptkit.errors import DataError, OutputError
from vptkit.progress import SILENT
from vptkit.regular_files import is_plain_name, read_regular
from vptkit.strict_json import parse_json
from vptkit.tune.phases.phase_plan import epochs_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from vptkit.progress import Progress

    from .search_space import Sweep

__all__ = ["Book", "Trial", "open_book"]

_FORMAT = "vptkit.sweep/1"
_MOST = 64 << 20  # bytes of a file of the book
# What is asked of a record of the history (`vptkit.tune.sweep.trial.record_of`).
_NUMBERS = ("epoch", "best_epoch", "best_top1", "best_loss")
_STATES = ("waiting", "running", "finished", "pruned", "failed", "lost")


@dataclass(slots=True, kw_only=True)
class Trial:
    """What became of one trial.

    Attributes:
        number: its place in the sweep.
        settings: the swept ones.
        epochs: how many it shall have.
        state: waiting; running (or was, when the driver ended); finished; pruned; failed: its
            settings or data do not work; lost: its worker died too often, it is tried again.
        history: one record an epoch (`vptkit.tune.sweep.trial.record_of`), and in it "node", where
            it ran, and "began", the epoch of the checkpoint that its worker began with.
        checkpoint: the runner's name for the last one.
        error: what it failed of.
    """

    number: int
    settings: dict[str, Any]
    epochs: int
    state: str = "waiting"
    history: list[dict[str, Any]] = field(default_factory=list)
    checkpoint: str | None = None
    error: str | None = None

    @property
    def pending(self) -> bool:
        """Whether there is something left to run."""
        return self.state in ("waiting", "running", "lost")

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.history[-1]["epoch"] if self.history else 0

    @property
    def val_top1(self) -> float | None:
        """The best so far."""
        return self.history[-1]["best_top1"] if self.history else None

    @property
    def val_loss(self) -> float | None:
        """The lowest log-loss so far; of a finished trial the adapter's, with its temperature."""
        return self.history[-1]["best_loss"] if self.history else None

    @property
    def standing(self) -> tuple[bool, float, float, int]:
        """Smaller is better: finished ones first, then by log-loss, accuracy and number.

        By log-loss, as an epoch is chosen: the accuracy on a hundred images ties and jumps.
        """
        if not self.history:
            return True, math.inf, 0.0, self.number
        last = self.history[-1]
        return self.state != "finished", last["best_loss"], -last["best_top1"], self.number

    def to_json(self) -> dict[str, Any]:
        """A line of the leaderboard."""
        return {
            "trial": self.number,
            "state": self.state,
            "settings": self.settings,
            "val_loss": self.val_loss,
            "val_top1": self.val_top1,
            "best_epoch": self.history[-1]["best_epoch"] if self.history else None,
            "epochs": self.epoch,
            "workers": len({(record["node"], record["began"]) for record in self.history}),
            "error": self.error,
        }


class Book:
    """All trials of a sweep; every change is written down at once."""

    def __init__(self, folder: Path, trials: Iterable[Trial], progress: Progress = SILENT) -> None:
        """For `open_book`."""
        self.folder = folder
        self.trials = tuple(trials)
        self.progress = progress
        self._begun = {trial.number: trial.epoch for trial in self.trials}
        self._count()

    def pending(self) -> list[Trial]:
        """Trials that are not over."""
        return [trial for trial in self.trials if trial.pending]

    def ranked(self) -> list[Trial]:
        """The best trial first."""
        return sorted(self.trials, key=lambda trial: trial.standing)

    def best(self) -> Trial | None:
        """The best of those that ran to their end."""
        found = self.ranked()[0]
        return found if found.state == "finished" else None

    def result(self, number: int, record: dict[str, Any]) -> None:
        """An epoch is done; one that was done before, and lost with a worker, replaces itself."""
        trial = self.trials[number]
        before = trial.epoch
        trial.history = [old for old in trial.history if old["epoch"] < record["epoch"]] + [record]
        trial.state, trial.error = "running", None
        self._write(trial)
        self.progress.update(max(trial.epoch - before, 0), self._text(trial))

    def checkpoint(self, number: int, name: str) -> None:
        """A checkpoint is stored."""
        self.trials[number].checkpoint = name
        self._write(self.trials[number])

    def end(self, number: int, state: str, error: str | None = None) -> None:
        """A trial is over: finished, pruned, failed or lost."""
        trial = self.trials[number]
        trial.state, trial.error = state, error
        self._write(trial)
        self._count()
        self.progress.update(0, self._text(trial))

    def _count(self) -> None:
        """Epochs that this run has to do: those that pruning saves count no more."""
        self.progress.total = sum(
            (trial.epochs if trial.pending else trial.epoch) - self._begun[trial.number]
            for trial in self.trials
        )

    def _text(self, trial: Trial) -> str:
        over = sum(not other.pending for other in self.trials)
        ahead = next((t for t in self.ranked() if t.val_loss is not None), None)
        state = f"epoch {trial.epoch}/{trial.epochs}" if trial.state == "running" else trial.state
        best = "" if ahead is None else f"; best {ahead.val_loss:.3f} (trial {ahead.number})"
        val = "" if trial.val_loss is None else f" val log-loss {trial.val_loss:.3f}"
        return f"{over} of {len(self.trials)} trials; trial {trial.number} {state}{val}{best}"

    def _write(self, trial: Trial) -> None:
        _write_json(self.folder / "trials" / f"{trial.number:04d}.json", asdict(trial))


def open_book(
    folder: Path, sweep: Sweep, *, force: bool = False, progress: Progress = SILENT
) -> Book:
    """Begin a sweep in a folder, or go on with the one that is there.

    Args:
        folder: made if it does not exist.
        sweep: must be the one of the folder, if there is one.
        force: forget the one of the folder.
        progress: counts epochs.

    Raises:
        OutputError: the folder holds another sweep, or something else.
        DataError: its files are damaged.
    """
    identity = json.loads(json.dumps({"format": _FORMAT, **sweep.to_json()}))
    trials = [
        Trial(number=i, settings=swept, epochs=epochs_of(sweep.config(i)))
        for i, swept in enumerate(sweep.trials)
    ]
    _claim(folder, identity, force=force)
    for trial in trials:
        path = folder / "trials" / f"{trial.number:04d}.json"
        if path.exists():
            _restore(trial, path)
    return Book(folder, trials, progress)


def _claim(folder: Path, identity: dict[str, Any], *, force: bool) -> None:
    folder.mkdir(exist_ok=True)
    mark = folder / "sweep.json"
    if not mark.is_file():
        ours = (".lock", f".{mark.name}.")  # of a start that was killed
        if any(not entry.name.startswith(ours) for entry in folder.iterdir()):
            raise OutputError(f"{folder}: exists, and holds no sweep. Choose another name.")
    elif not force:
        found = _read_json(mark)
        odd = sorted(k for k in {*found, *identity} if found.get(k) != identity.get(k))
        if odd:
            raise OutputError(
                f"{folder}: holds another sweep; what differs: {', '.join(odd)}. Choose another "
                "folder, or pass --force to begin anew."
            )
    else:
        for name in ("trials", "ray"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for old in (*folder.glob("best.*"), *folder.glob("leaderboard.*")):
            old.unlink()
    if (folder / "trials").is_symlink():
        raise OutputError(
            f"{folder / 'trials'}: a symbolic link, which is not followed. Remove it."
        )
    # After the old trials went and before new ones come: a folder without it seems not to be ours.
    _write_json(mark, identity)
    try:
        (folder / "trials").mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error


def _restore(trial: Trial, path: Path) -> None:
    found = _read_json(path)
    try:
        trial.state = _STATES[_STATES.index(found["state"])]
        trial.history = [_record(record) for record in found["history"]]
        trial.checkpoint = _place(found["checkpoint"])
        trial.error = None if found["error"] is None else str(found["error"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged. Remove it, and the trial is run again.") from error


def _record(record: Any) -> dict[str, Any]:
    """An epoch of the history, if it has what is asked of it."""
    numbers = [record[name] for name in _NUMBERS]
    if not all(type(n) in (int, float) and math.isfinite(n) for n in numbers):
        raise ValueError("history")
    if type(record["epoch"]) is not int or type(record["finished"]) is not bool:
        raise TypeError("history")
    known: dict[str, Any] = record
    return {**known, "node": str(known["node"]), "began": int(known["began"])}


def _place(checkpoint: Any) -> str | None:
    """A checkpoint's name below the storage, RUN/TRIAL/CHECKPOINT, that leads nowhere else."""
    if checkpoint is None:
        return None
    if not isinstance(checkpoint, str) or not is_plain_name(checkpoint, levels=3):
        raise ValueError("checkpoint")
    return checkpoint


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return parse_json(read_regular(path, DataError, limit=_MOST), path, DataError)
    except DataError as error:
        raise DataError(f"{error}. Remove it to begin anew.") from error


def _write_json(path: Path, document: dict[str, Any]) -> None:
    with atomic_file(path) as part:
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
