"""Both papers and the product on our scale: one grid of trainings that goes on where it stopped.

A cell is one training. Its record, a line of JSON, is written as soon as it ends: stop the script
and start it again, on a part of the grid, with another device. Tables and pictures are made of the
records that are there. `val` chooses (of few images cross-validation); `test` and `ood` are read
once a cell. Seeds come one after the other, and in a seed first what most hangs on, so that what is
there when time is up is whole. With a GPU at hand:

    python -m tests.benchmarks.evidence docs/evidence.jsonl --shared ../shared --adapters RUNS \
        --device cuda --jobs 4 --budget 10m --backbones vit-b --weights vit_b.safetensors

    python -m tests.benchmarks.evidence docs/evidence.jsonl --plot docs/evidence.png  # report alone
    python -m tests.benchmarks.evidence docs/evidence.jsonl --settings                # what is passed
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import time
import traceback
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .evidence_bars import against_best, bars, long_runs
from .evidence_cells import BACKBONES, METHODS, RECIPES, SETS, Cell, grid, settings_table
from .evidence_plot import plot, plot_lines
from .evidence_records import Records, append_record, cell_of, expected_seconds, read_records
from .evidence_report import paired, tables
from .evidence_run import Place, run_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LONG = 100  # epochs of BPT's claim
_UNITS = {"s": 1, "m": 60, "h": 3600}


class Chooser:
    """Which cell comes next.

    It reads the records anew each time: a second process may fill in the same file.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        records: Path,
        device: str,
        seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """The clock of the budget starts."""
        self._cells, self._records, self._device = list(cells), records, device
        self._clock, self._end = clock, None if seconds is None else clock() + seconds
        self.left_out = 0

    def next(self) -> Cell | None:
        """The first that has no record and ends in time; None if there is none."""
        rows = read_records(self._records)
        done = {cell_of(row) for row in rows}
        while self._cells:
            cell = self._cells.pop(0)
            if cell in done:
                continue
            if self._fits(cell, rows):
                return cell
            self.left_out += 1
        return None

    def _fits(self, cell: Cell, rows: list[dict[str, Any]]) -> bool:
        """Whether it ends in time, as far as the median of cells like it tells."""
        if self._end is None:
            return True
        left = self._end - self._clock()
        return left > 0 and (expected_seconds(cell, rows, self._device) or 0) <= left


def run_grid(chooser: Chooser, records: Path, place: Place, jobs: int) -> bool:
    """Train what the chooser gives, so many at once; whether all came to a record."""
    context = multiprocessing.get_context("spawn")
    running: dict[Future[dict[str, Any]], Cell] = {}
    count, whole = 0, True
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        while True:
            while len(running) < jobs and (cell := chooser.next()) is not None:
                running[pool.submit(run_cell, cell, place)] = cell
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                cell, count = running.pop(future), count + 1
                try:
                    record = future.result()
                except Exception:  # a fault of this script or of vptkit; the other cells go on
                    traceback.print_exc()
                    whole = False
                    continue
                append_record(records, record)
                told = record.get("failed") or f"test {record['test_top1']:.3f}"
                print(f"{count} {cell.name}: {told}, {record['seconds']} s", flush=True)
    if chooser.left_out:
        print(f"{chooser.left_out} cells would not have ended in time")
    return whole


def report(rows: list[dict[str, Any]]) -> str:
    """All that the records say, as Markdown."""
    lines = []
    for epochs in sorted({row["epochs"] for row in rows}):
        records = Records(rows, epochs)
        lines += ["", f"## {epochs} epochs: {len(records.rows)} trainings"]
        if records.failed:
            lines += ["", f"{len(records.failed)} came to no end:", ""]
            lines += [f"- {cell_of(row).name}: {row['failed']}" for row in records.failed]
        if epochs <= 20:
            lines += bars(records)
        lines += [*against_best(records), *paired(records)]
        if epochs >= _LONG:
            lines += long_runs(records)
        lines += tables(records)
    return "\n".join(lines)


def seconds_of(text: str) -> float:
    """Of "90s", "10m", "2h"."""
    try:
        return float(text[:-1]) * _UNITS[text[-1:]]
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r}: expected 90s, 10m, 2h") from None


def commit() -> str | None:
    """Of the code that runs, "+" if it was changed since; None without git."""
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--exclude=*"]
    try:
        done = subprocess.run([*words, "--dirty=+"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("records", type=Path, help="JSON lines; those that are there are kept")
    parser.add_argument("--shared", type=Path, help="train; without, only report")
    parser.add_argument("--adapters", type=Path, help="a folder for what is trained")
    usual = [name for name in BACKBONES if name != "vit-b"]
    parser.add_argument("--backbones", nargs="+", default=usual, choices=BACKBONES)
    parser.add_argument("--weights", type=Path, help="of vit-b")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    amounts = {"choices": (0, 2, 5, 10), "help": "images a class in all; 0: all there are"}
    parser.add_argument("--shots", nargs="+", type=int, default=[0, 10, 2], **amounts)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lines", action="store_true", help="walk from start to end, too")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--budget", type=seconds_of, help="start nothing that ends later, as 10m")
    parser.add_argument("--plot", type=Path, help="picture of the accuracies, 20 epochs")
    parser.add_argument("--plot-lines", type=Path, help="picture of OOD along the lines")
    parser.add_argument("--settings", action="store_true", help="only tell what each cell passes")
    return parser


def train(args: argparse.Namespace) -> bool:
    """The cells that are asked for and missing."""
    args.adapters.mkdir(parents=True, exist_ok=True)
    names = ("seeds", "backbones", "recipes", "shots", "methods", "sets", "epochs")
    cells = list(grid(**{name: getattr(args, name) for name in names}))
    place = Place(
        shared=args.shared.resolve(),
        adapters=args.adapters.resolve(),
        device=args.device,
        weights=args.weights,
        lines=args.lines,
        commit=commit(),
    )
    chooser = Chooser(cells, args.records, args.device, args.budget)
    return run_grid(chooser, args.records, place, args.jobs)


def main() -> None:
    """Run the cells that are asked for and missing, then report on all that are there."""
    parser = options()
    args = parser.parse_args()
    if args.settings:
        print(settings_table(args.epochs))
        return
    whole = True
    if args.shared is not None:
        if args.adapters is None:
            parser.error("--shared wants --adapters, too")
        if "vit-b" in args.backbones and args.weights is None:
            parser.error("vit-b wants --weights FILE: random weights are no evidence")
        whole = train(args)
    rows = read_records(args.records)
    print(report(rows))
    if args.plot is not None:
        plot(Records(rows, args.epochs), args.plot)
    if args.plot_lines is not None:
        plot_lines(Records(rows, args.epochs), args.plot_lines)
    if not whole:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
