"""TensorBoard's logs of a run (`--tensorboard`), by torch's writer and the package tensorboard.

A step is an epoch; along λ and α it is a thousandth of them. A log is made of the run's own record: what
a killed run left is removed, and the run that goes on writes all of it again, so that no point stands
there twice. Only files of ours are removed: their names end in `.vptkit`.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vptkit.errors import MissingExtraError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = ["EventLog", "require_no_log", "require_tensorboard"]

_OURS, _EVENTS = ".vptkit", "events.out.tfevents.*"
_CURVE_STEPS = 1000  # of λ or α from 0 to 1: steps are whole numbers


def require_tensorboard() -> None:
    """Find out before a training, without importing it, whether the package is there.

    Raises:
        MissingExtraError: it is not installed.
    """
    if find_spec("tensorboard") is None:
        raise MissingExtraError("tensorboard", "tensorboard", "--tensorboard")


def require_no_log(folders: Iterable[Path], *, resume: bool, force: bool) -> None:
    """Refuse to mix two runs into one.

    Args:
        folders: where this one shall log.
        resume: the log may be there: it is this run's.
        force: it is replaced.

    Raises:
        OutputError: a log is there, or a folder cannot be one.
    """
    for folder in folders:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder}: not a folder. Name another one with --tensorboard.")
        if not (resume or force) and folder.is_dir() and any(folder.glob(_EVENTS)):
            raise OutputError(
                f"{folder}: logs of another run are there. Name a folder of this run's own with "
                "--tensorboard, or pass --force."
            )


class EventLog:
    """The log of one run."""

    def __init__(self, folder: Path, *, more: bool = False) -> None:
        """Nothing is written or removed yet.

        Args:
            folder: of the run's events.
            more: what is there is of this run, and stays.
        """
        self._folder, self._more = folder, more
        self._writer: Any = None
        self._done: set[int] = set()

    def epochs(
        self,
        records: Sequence[Mapping[str, Any]],
        rates: Callable[[int], Mapping[str, float]],
        *,
        several: bool = False,
    ) -> None:
        """Note the epochs that are not noted yet.

        Args:
            records: of `TrainState.records`.
            rates: epoch → the last learning rate of each part that learned in it.
            several: labels an image: scores are mean average precisions.

        Raises:
            OutputError: the folder cannot be written.
        """
        names = {"train_loss": "train/loss", "val_loss": "val/loss"}
        names |= {"train_top1": "train/label_accuracy" if several else "train/accuracy"}
        names |= {"val_top1": "val/map" if several else "val/accuracy", "cycle": "phase/cycle"}
        for record in records:
            epoch = record["epoch"]
            if epoch in self._done:
                continue
            self._done.add(epoch)
            found = {tag: record.get(key) for key, tag in names.items()}
            if "part" in record:
                found["phase/head_alone"] = float(record["part"] == "head")
            if epoch:
                found |= {f"lr/{part}": rate for part, rate in rates(epoch).items()}
            self._scalars(found, epoch)
        self._flush()

    def curve(self, name: str, factor: str, curve: Iterable[Mapping[str, Any]], score: str) -> None:
        """Note what was measured along λ or α.

        Args:
            name: of the curve, "lambda" or "alpha".
            factor: the key of the rows that holds it.
            curve: the rows; of val alone.
            score: what `val_top1` is, "accuracy" or "map".
        """
        for row in curve:
            found = {
                f"{name}/val_{score}": row.get("val_top1"),
                f"{name}/val_loss": row["val_loss"],
            }
            self._scalars(found, round(_CURVE_STEPS * row[factor]))
        self._flush()

    def outcome(self, settings: Mapping[str, Any], metrics: Mapping[str, float | None]) -> None:
        """Note settings and results, as TensorBoard's HParams compares them."""
        from torch.utils.tensorboard.summary import hparams

        plain = {
            key: value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
            for key, value in settings.items()
            if value is not None
        }
        told = {f"hparam/{name}": value for name, value in metrics.items() if value is not None}
        for summary in hparams(plain, told):
            self._opened().file_writer.add_summary(summary)
        self._scalars(told, 0)
        self._flush()

    def close(self) -> None:
        """All of it is on the disk."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _scalars(self, found: Mapping[str, float | None], step: int) -> None:
        for tag, value in found.items():
            if value is not None:
                self._opened().add_scalar(tag, value, step)

    def _flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def _opened(self) -> Any:
        if self._writer is not None:
            return self._writer
        from torch.utils.tensorboard import SummaryWriter

        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for old in () if self._more else self._folder.glob(f"{_EVENTS}{_OURS}"):
                old.unlink()
            self._writer = SummaryWriter(str(self._folder), filename_suffix=_OURS)
        except OSError as error:
            raise OutputError(
                f"{self._folder}: logs cannot be written there: {error.strerror}."
            ) from error
        return self._writer
