"""A sweep: run the trials, rank them by validation log-loss, make the best one's adapter.

Who runs the trials is a `Runner`: Ray Tune in `vptkit.tune.sweep.ray_runner`, or anything that keeps the
book. FOLDER ends up with leaderboard.json, .csv and .png, best.safetensors, and the book.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vptkit.atomic_files import atomic_file, require_writable
from vptkit.errors import AdapterError, DataError, OutputError, VptkitError
from vptkit.formats.adapter import read_adapter
from vptkit.formats.manifest_schema import MULTILABEL
from vptkit.part_files import remove_dead_parts
from vptkit.plot_text import can_draw
from vptkit.private_files import locked
from vptkit.progress import SILENT
from vptkit.regular_files import read_regular
from vptkit.shown_text import shown, spreadsheet_rows
from vptkit.strict_json import json_text, parse_json
from vptkit.text_table import columns

from . import sweep_plot
from .search_space import Sweep, sweep_from_mapping
from .trial import adapter_from_checkpoint, require_inputs
from .trial_store import Book, Trial, open_book

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vptkit.progress import Progress
    from vptkit.tune.run.run_result import TuneResult

__all__ = ["Runner", "leaderboard_table", "sweep", "sweep_from_mapping"]

_MOST = 256 << 20  # bytes of a leaderboard


class Runner(Protocol):
    """Someone who runs trials (`vptkit.tune.sweep.trial.run_trial`)."""

    def run(self, sweep: Sweep, book: Book) -> None:
        """Run the pending trials; the book hears of every epoch, checkpoint and end.

        Raises:
            KeyboardInterrupt: some are left, in good order.
        """

    def fetch(self, book: Book, trial: Trial, target: Path) -> Path:
        """The file of a trial's last checkpoint, in the folder `target`."""


def sweep(
    plan: Sweep, folder: Path, runner: Runner, *, force: bool = False, progress: Progress = SILENT
) -> dict[str, Any]:
    """Run what is left of a sweep, and report.

    Test images are looked at once: by the adapter of the trial that was best on val.

    Args:
        plan: of `sweep_from_mapping`.
        folder: of everything that the sweep makes. One that holds this sweep already is gone on
            with: trials that are over stay as they are, others continue from their checkpoints. A
            sweep that is over altogether stays as it is, with its adapter.
        runner: runs the trials.
        force: forget what the folder holds of a sweep.
        progress: counts epochs.

    Returns:
        The document of leaderboard.json.

    Raises:
        VptkitError: no trial ran to its end; bad input.
        OutputError: the folder is another sweep's, or another process is at it.
    """
    require_inputs(plan.data, map(plan.config, range(len(plan.trials))))
    with _alone(folder):
        book = open_book(folder, plan, force=force, progress=progress)
        for place in (folder, folder / "trials"):
            remove_dead_parts(place)
        if (kept := _finished(plan, book)) is not None:
            return kept
        try:
            if book.pending():
                runner.run(plan, book)
        finally:
            document = _document(plan, book, None)
            _write_leaderboard(document, folder)
        best = book.best()
        if best is None:
            reasons = [trial.error for trial in book.trials if trial.error]
            raise VptkitError(
                f"{folder}: no trial ran to its end; the first says: {(reasons or ['-'])[0]}"
            )
        document = _document(plan, book, _best(plan, book, best, runner))
        _plot(document, folder / "leaderboard.png")
        _write_leaderboard(document, folder)  # last: with a best trial in it, the sweep is over
        return document


def leaderboard_table(document: dict[str, Any], *, limit: int = 20) -> str:
    """The leaderboard as text: the best trials, those that failed, and where the adapter is."""
    rows, swept = document["leaderboard"], list(document["space"])
    score, name = ("val_map", "val mAP") if _several(rows) else ("val_top1", "val top-1")
    header = ["trial", "state", *swept, "val log-loss", name, "epochs"]
    cells = [
        [
            str(row["trial"]),
            row["state"] + (f" ({row['workers']} workers)" if row["workers"] > 1 else ""),
            *(_cell(row["settings"][name]) for name in swept),
            _cell(row["val_loss"], ".4f"),
            _cell(row[score], ".4f"),
            str(row["epochs"]),
        ]
        for row in rows[:limit]
    ]
    lines = [columns(header, cells)]
    if len(rows) > limit:
        lines.append(f"and {len(rows) - limit} more: {document['folder']}/leaderboard.csv")
    lines += [f"trial {r['trial']} {r['state']}: {r['error']}" for r in rows if r["error"]]
    best = document["best"]
    if best is not None:
        val, test = best[score], best[score.replace("val", "test")]
        what = "mAP " if score == "val_map" else ""
        told = f"{what}{val:.4f}" + ("" if test is None else f", test {test:.4f}")
        lines.append(f"best: trial {best['trial']}, val {told}: {best['adapter']}")
    return "\n".join([lines[0], *map(shown, lines[1:])])  # the table is shown already


def _finished(plan: Sweep, book: Book) -> dict[str, Any] | None:
    """The leaderboard of a sweep that is over, if it and its adapter agree with the book."""
    best, output = book.best(), book.folder / "best.safetensors"
    if book.pending() or best is None:
        return None
    try:
        path = book.folder / "leaderboard.json"
        found = parse_json(read_regular(path, DataError, limit=_MOST), path, DataError)
        chosen, record = found["best"], read_adapter(output).train
        scores = {key: chosen[key] for key in ("val_top1", "test_top1", "best_epoch")}
    except (AdapterError, DataError, KeyError, TypeError):
        return None
    config = plan.config(best.number).to_json()
    document = _document(plan, book, {**chosen, "adapter": str(output)})
    agree = (
        chosen["trial"] == best.number
        and found["leaderboard"] == json.loads(json_text(document["leaderboard"]))
        and {**scores, "config": config} == {key: record.get(key) for key in (*scores, "config")}
    )
    return document if agree else None


def _best(plan: Sweep, book: Book, trial: Trial, runner: Runner) -> dict[str, Any]:
    output = book.folder / "best.safetensors"
    with tempfile.TemporaryDirectory(prefix="vptkit-best-") as target:
        checkpoint = runner.fetch(book, trial, Path(target))
        result = adapter_from_checkpoint(plan.data, output, plan.config(trial.number), checkpoint)
    return {
        "trial": trial.number,
        "settings": trial.settings,
        "val_top1": result.val_top1,
        "test_top1": result.test_top1,
        **_maps(result),
        "best_epoch": result.best_epoch,
        "trainable": result.trainable,
        "adapter": str(output),
        "warnings": list(result.warnings),
    }


def _document(plan: Sweep, book: Book, best: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "folder": str(book.folder),
        **{key: value for key, value in plan.to_json().items() if key != "trials"},
        "chosen_by": "val_loss",
        "best": best,
        "leaderboard": [_row(plan, trial) for trial in book.ranked()],
    }


def _row(plan: Sweep, trial: Trial) -> dict[str, Any]:
    """A line of the leaderboard; of several labels an image the score is mAP, and called so."""
    row = trial.to_json()
    if plan.config(trial.number).task == MULTILABEL:
        row |= {"val_top1": None, "val_map": row["val_top1"]}
    return row


def _maps(result: TuneResult) -> dict[str, float | None]:
    """Of several labels an image, mAP on val and test."""
    if result.multilabel is None:
        return {}
    parts = {split: result.multilabel[split] for split in ("val", "test")}
    return {f"{split}_map": part["map"] if part else None for split, part in parts.items()}


def _several(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any("val_map" in row for row in rows)


def _write_leaderboard(document: dict[str, Any], folder: Path) -> None:
    names = list(document["space"])
    plain = ["state", "val_loss", "val_top1", "best_epoch", "epochs", "workers", "error"]
    if _several(document["leaderboard"]):
        plain.insert(3, "val_map")
    with (
        atomic_file(folder / "leaderboard.csv") as part,
        part.open("w", encoding="utf-8", newline="") as stream,
    ):
        write = spreadsheet_rows(stream)
        write(["trial", *names, *plain])
        for row in document["leaderboard"]:
            settings = [row["settings"][name] for name in names]
            write([row["trial"], *settings, *(row[name] for name in plain)])
    with atomic_file(folder / "leaderboard.json") as part:
        part.write_text(json_text(document, indent=1) + "\n", encoding="utf-8")


def _plot(document: dict[str, Any], path: Path) -> None:
    if can_draw():
        sweep_plot.plot_sweep(document, path)


def _cell(value: Any, form: str = "") -> str:
    if value is None:
        return "-"
    return format(value, form or ("g" if isinstance(value, float) else ""))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; the lock ends with the process, however that ends."""
    if not folder.parent.is_dir():
        raise OutputError(f"{folder}: {folder.parent} does not exist. Create it first.")
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: exists, and is no folder. Choose another name.")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error

    def refuse() -> None:
        raise OutputError(f"{folder}: another vptkit sweep is running in it")

    remedy = "Remove it, or choose another folder."
    with locked(folder / ".lock", OutputError, waiting=refuse, remedy=remedy):
        require_writable(folder / "sweep.json")  # a killed start leaves no other name
        yield
