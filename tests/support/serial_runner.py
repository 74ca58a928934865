"""A runner of sweeps without Ray: one trial after the other, in this process."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from vptkit.errors import VptkitError
from vptkit.tune.sweep.trial import CHECKPOINT, record_of, run_trial

if TYPE_CHECKING:
    from pathlib import Path

    from vptkit.tune.sweep.search_space import Sweep
    from vptkit.tune.sweep.trial_store import Book, Trial

__all__ = ["Serial"]


class Serial:
    """Keeps checkpoints in a folder; may be stopped after some epochs.

    Attributes:
        store: that folder.
        began: trial → the epoch that it went on from, 0 if it began anew.
    """

    def __init__(self, store: Path, stop_after: int | None = None) -> None:
        self.store, self.left = store, stop_after
        self.began: dict[int, int] = {}

    def run(self, sweep: Sweep, book: Book) -> None:
        """Every trial that is not over."""
        for trial in book.pending():
            start = self.fetch(book, trial, self.store) if trial.checkpoint else None
            about = {"node": "here", "began": record_of(start)["epoch"] if start else 0}
            self.began[trial.number] = about["began"]

            def report(
                record: dict[str, Any],
                checkpoint: Path | None,
                trial: Trial = trial,
                about: dict[str, Any] = about,
            ) -> None:
                book.result(trial.number, {**record, **about})
                if checkpoint is not None:
                    name = f"trial-{trial.number}/{record['epoch']}"
                    (self.store / name).mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(checkpoint, self.store / name / CHECKPOINT)
                    book.checkpoint(trial.number, name)
                if self.left is not None:
                    self.left -= 1
                    if not self.left:
                        raise KeyboardInterrupt

            try:
                run_trial(sweep.data, sweep.settings(trial.number), start, report)
                book.end(trial.number, "finished")
            except VptkitError as error:
                if type(error) is not VptkitError:
                    raise  # files, a full disk: as in a worker of Ray, not the trial's fault
                book.end(trial.number, "failed", str(error))

    def fetch(self, book: Book, trial: Trial, target: Path) -> Path:
        """Where a trial's last checkpoint lies."""
        return self.store / str(trial.checkpoint) / CHECKPOINT
