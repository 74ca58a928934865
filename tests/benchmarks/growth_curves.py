"""How latency and memory grow with prompts, adapters, image tokens and images (docs/benchmarks.md).

Folded bundles on ONNX Runtime CPU: 0 to 200 deep prompts (beside the same prompts as tokens, unfolded), a
bank of 1 to 50 adapters that a batch mixes, images of 112 to 384 px, batches of 1 to 8. All graphs are
interleaved in one process, by wall and processor time; memory is that of a process for each run.
Weights are random.

    python -m tests.benchmarks.growth_curves docs/growth.jsonl --plot docs/growth.png
    python -m tests.benchmarks.growth_curves docs/growth.jsonl --plot docs/growth.png --redraw
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.devices.probes.machine import detect_machine
from vptkit.export.bank.export_bank import export_bank
from vptkit.export.bundle.export_bundle import export
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.formats.adapter import read_adapter, write_adapter
from vptkit.runtime.measure.memory_footprint import measure_memory
from vptkit.runtime.measure.timing import random_images
from vptkit.runtime.session.factory import open_session

from .bank_cpu import adapters
from .cpu_backends import interleaved
from .growth_plot import plot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PROMPTS, BANKS = (0, 10, 50, 100, 200), (1, 4, 16, 50)
SIZES, BATCHES = (112, 160, 224, 288, 384), (1, 2, 4, 8)
PATCH = 16  # pixels, of every model that may be asked for
USUAL, OF_BANK, MIXED = 100, 50, 8  # prompts; prompts of a bank's adapters; images of its batch
UNITS = ("ms", "processor_ms", "peak_mib", "added_mib")


@dataclass(frozen=True)
class Point:
    """A graph, and where it stands on its curve."""

    curve: str
    graph: str
    x: int
    bundle: Path
    batch: int = 1

    @property
    def name(self) -> str:
        """No other's."""
        return f"{self.curve}, {self.graph}, {self.x}"


def baked(args: argparse.Namespace, folder: Path, prompts: int, size: int, *, fold: str) -> Path:
    """A bundle of one adapter, exported unless it is there."""
    output = folder / f"{prompts}-{size}-{fold}.vptk"
    if not output.exists():
        with tempfile.TemporaryDirectory(dir=folder) as name:
            files, weights = _adapters(args, Path(name), 0, max(prompts, 1), size)
            if not prompts:
                write_adapter(files[0], read_adapter(files[0]).without_prompts())
            export(files[0], output, weights=weights, options=ExportOptions(fold=fold))  # type: ignore[arg-type]
    return output


def banks(args: argparse.Namespace, folder: Path) -> dict[int, Path]:
    """Number of adapters → bundle, exported unless all are there."""
    made = {count: folder / f"bank-{count}.vptk" for count in BANKS}
    if all(output.exists() for output in made.values()):
        return made
    with tempfile.TemporaryDirectory(dir=folder) as name:
        files, weights = _adapters(args, Path(name), max(BANKS), OF_BANK, 224)
        for count, output in made.items():
            export_bank(files[:count], output, weights=weights, force=True)
    return made


def _adapters(
    args: argparse.Namespace, folder: Path, count: int, prompts: int, size: int
) -> tuple[list[Path], Path]:
    asked = argparse.Namespace(model=args.model, adapters=count, prompts=prompts, classes=10)
    return adapters(asked, folder, img_size=size)


def points_of(args: argparse.Namespace, folder: Path) -> list[Point]:
    """Every graph; the first of a curve is what its others are compared with."""
    found = []
    for graph, fold in (("folded", "all"), ("prompts as tokens", "none")):
        for count in PROMPTS:
            bundle = baked(args, folder, count, 224, fold=fold)
            found.append(Point("prompts", graph, count, bundle))
    for count, bundle in banks(args, folder).items():
        found.append(Point("adapters", "bank", count, bundle, MIXED))
    for size in SIZES:
        bundle = baked(args, folder, USUAL, size, fold="all")
        found.append(Point("tokens", "folded", (size // PATCH) ** 2, bundle))
    bundle = baked(args, folder, USUAL, 224, fold="all")
    found += [Point("batch", "folded", batch, bundle, batch) for batch in BATCHES]
    return found


def latencies(points: Sequence[Point], args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Name → milliseconds of each run: float64 [2, rounds], by the wall and of the processor."""
    opened = {one.bundle: open_session(one.bundle, threads=args.threads) for one in points}
    calls = {one.name: _call(one, opened[one.bundle]) for one in points}
    # With twenty graphs open, the weights of one are far away again when its turn comes
    found = interleaved(calls, args.rounds, untimed=1)
    return {name: 1000 * of.T for name, of in found.items()}


def _call(point: Point, session: Any) -> Callable[[], object]:
    images = random_images(point.batch, session.bundle.preprocess.size)
    if point.graph != "bank":
        return lambda: session.run(images)
    known = session.bundle.adapter_names
    names = [known[i * len(known) // point.batch] for i in range(point.batch)]
    return lambda: session.run(images, names)


def memories(points: Sequence[Point], args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Name → MiB: float64 [2, runs], the most ever held and what the bundle added."""
    rng, found = np.random.default_rng(0), {one.name: [] for one in points}
    for _ in range(args.memory_runs):
        for i in rng.permutation(len(points)):
            one = points[i]
            held = measure_memory(one.bundle, backend="cpu", batch=one.batch, threads=args.threads)
            if held is None:
                raise SystemExit("this system has no /proc/self/status: pass --memory-runs 0")
            found[one.name].append((held.peak, held.increase))
    return {name: np.array(of).T for name, of in found.items() if of}


def rows_of(
    points: Sequence[Point], model: str, measured: Sequence[Mapping[str, np.ndarray]]
) -> list[dict[str, Any]]:
    """A row a point: quartiles of each unit, and of its ratio to the curve's first, run by run."""
    first: dict[str, str] = {}
    rows = []
    for one in points:
        base = first.setdefault(one.curve, one.name)
        row = {
            "model": model,
            "curve": one.curve,
            "graph": one.graph,
            "x": one.x,
            "batch": one.batch,
        }
        units = [(values[one.name], values[base]) for values in measured if values]
        pairs = [pair for both in units for pair in zip(*both, strict=True)]
        for unit, (own, of_first) in zip(UNITS, pairs, strict=False):
            row[unit] = np.percentile(own, [25, 50, 75]).round(2).tolist()
            ratio = np.percentile(own / of_first, [25, 50, 75])
            row[f"{unit}_ratio"] = ratio.round(3).tolist()
        rows.append(row)
    return rows


def told(rows: Sequence[Mapping[str, Any]]) -> None:
    """Markdown tables, one a curve."""
    units = [unit for unit in UNITS if unit in rows[-1]]
    for curve in dict.fromkeys(row["curve"] for row in rows):
        print(f"\n| {curve} | graph " + "".join(f"| {unit} | ÷ first " for unit in units) + "|")
        print("| --- " * (2 + 2 * len(units)) + "|")
        for row in (row for row in rows if row["curve"] == curve):
            cells = [str(row["x"]), row["graph"]]
            for unit in units:
                low, middle, high = row[f"{unit}_ratio"]
                cells += [f"{row[unit][1]:.1f}", f"{middle:.3f} [{low:.3f}, {high:.3f}]"]
            print(f"| {' | '.join(cells)} |")


def measured_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The circumstances, then a row a point."""
    with tempfile.TemporaryDirectory(prefix="vptkit-growth-") as name:
        folder = args.bundles or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        points = points_of(args, folder)
        loads = [os.getloadavg()[0]]
        times = latencies(points, args)
        loads.append(os.getloadavg()[0])
        versions = open_session(points[0].bundle).versions
        rows = rows_of(points, args.model, [times, memories(points, args)])
    machine = detect_machine()
    circumstances = {
        "model": args.model,
        "rounds": args.rounds,
        "memory_runs": args.memory_runs,
        "threads": args.threads,
        "load": [round(load, 1) for load in loads],
        "cpu": machine["cpu"],
        "cpu_features": list(machine["cpu_features"] or ()),
        "cores": machine["cores"],
        "versions": dict(versions),
    }
    return [circumstances, *rows]


def main() -> None:
    """Measure, write and draw; or draw what was written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, help="JSON lines: circumstances, then a row a point")
    parser.add_argument("--plot", type=Path, help="picture of the rows")
    parser.add_argument("--redraw", action="store_true", help="measure nothing")
    parser.add_argument("--bundles", type=Path, help="folder of this model's, kept and used again")
    parser.add_argument("--model", default="vit_tiny_patch16_224", help="or another of patch 16")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--memory-runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if not args.redraw:
        lines = [json.dumps(row) + "\n" for row in measured_rows(args)]
        args.rows.write_text("".join(lines), encoding="utf-8")
    lines = args.rows.read_text(encoding="utf-8").splitlines()
    circumstances, *rows = [json.loads(line) for line in lines]
    print(circumstances)
    told(rows)
    if args.plot is not None:
        plot(circumstances, rows, args.plot)


if __name__ == "__main__":
    main()
