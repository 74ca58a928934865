"""Accuracy beside latency: plain, with merged tokens, int8, and both (docs/benchmarks.md).

ViT-Ti AugReg at 224 px, a linear probe on flowers5, tuned with the merging that it is exported with; the
probe's strength is chosen on `val`, `test` is asked once. ONNX Runtime CPU, all bundles interleaved in one
process. Every result but the latency is the same on each run.

    python -m tests.benchmarks.accuracy_latency RUNS --shared ../shared
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import vptkit
from vptkit.devices.probes.machine import cpu_has_vnni, detect_machine
from vptkit.export import ExportOptions, Lowering
from vptkit.runtime.measure.timing import random_images
from vptkit.scores.score_interval import wilson

from .cpu_backends import interleaved, quartiles
from .token_merging_accuracy import BACKBONE, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterator

PRECISIONS = ("fp32", "int8")


def bundles(args: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Name of each variant and its bundle, made unless it is there; plain fp32 is the first."""
    data, weights = args.shared / "data" / args.data, args.shared / WEIGHTS
    for precision in args.precisions:
        for r in (0, *args.merges):
            adapter = args.runs / f"{args.data}-r{r}.safetensors"
            if not adapter.exists():
                vptkit.tune(
                    data,
                    adapter,
                    test=False,
                    backbone=BACKBONE,
                    weights=weights,
                    method="linear",
                    merge=r,
                    pictures="none",
                )
            bundle = args.runs / f"{args.data}-r{r}-{precision}.vptk"
            if not bundle.exists():
                # The bound is low: what int8 costs is what is asked for here
                lowering = Lowering(precision=precision, min_agreement=0.5)
                images = (
                    {}
                    if precision == "fp32"
                    else {"calibration": data / "train", "gate": data / "val"}
                )
                vptkit.export(
                    adapter,
                    bundle,
                    weights=weights,
                    options=ExportOptions(lowering=lowering),
                    **images,
                )
            yield f"{precision}, r = {r}", bundle


def main() -> None:
    """Tune, export, measure and print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="folder of adapters and bundles, used again")
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--data", default="flowers5")
    parser.add_argument("--merges", type=int, nargs="*", default=[8, 12])
    parser.add_argument("--precisions", nargs="*", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    sessions = {
        name: vptkit.open_session(bundle, threads=args.threads) for name, bundle in bundles(args)
    }
    images = random_images(1, next(iter(sessions.values())).bundle.preprocess.size)
    calls = {name: lambda s=session: s.run(images) for name, session in sessions.items()}
    load = os.getloadavg()[0]
    times = interleaved(calls, args.rounds)
    machine = detect_machine()
    print(f"{machine['cpu']}, VNNI: {cpu_has_vnni()}, {args.threads} threads, {args.rounds} rounds")
    print(f"load {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end")
    print("\n| bundle | MACs | wall ÷ first | processor's ms | ÷ first | val top-1 | test top-1 |")
    print("| --- " * 7 + "|")
    base, macs = next(iter(times.values())), []
    for name, session in sessions.items():
        macs.append(session.bundle.manifest["macs"]["graph"])
        ratios = [quartiles(times[name][:, i] / base[:, i]) for i in (0, 1)]
        found = [
            vptkit.evaluate(session, args.shared / "data" / args.data, split=split)
            for split in ("val", "test")
        ]
        cells = [name, f"{macs[-1] / macs[0]:.3f}", ratios[0]]
        cells += [f"{1000 * np.median(times[name][:, 1]):.1f}", ratios[1]]
        for one in found:
            low, high = wilson(one.right, one.count)
            cells.append(f"{100 * one.top1:.1f} % ({100 * low:.1f} to {100 * high:.1f})")
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
