"""LoadGen's SingleStream against our own rounds, in one process (docs/profiling.md).

Turns of both, the order drawn anew; turns in which others worked are left out (`quiet`).

    python -m tests.benchmarks.loadgen_agreement [--model vit_tiny_patch16_224] [--turns 10]
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.benchmarks.opening import bundle_of
from tests.support.quiet import SHARE, quiet_turns
from vptkit.runtime.loadgen.loadgen_settings import LoadGenSettings
from vptkit.runtime.loadgen.run_loadgen import run_loadgen
from vptkit.runtime.measure.timing import Budget, measure_latency, random_images
from vptkit.runtime.session.factory import open_session

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--bundle", type=Path, help="This one instead.")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--patience", type=float, default=600.0, help="Seconds.")
    parser.add_argument("--others", type=float, default=SHARE, help="Cores that others may take.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = args.bundle or bundle_of(args.model, 1, Path(folder))
        session = open_session(bundle, "cpu")
        images = random_images(1, session.bundle.preprocess.size)
        run = functools.partial(session.run, images)
        settings = LoadGenSettings(scenario="SingleStream", queries=args.queries)
        logs = (Path(folder) / str(number) for number in itertools.count())
        calls = {
            "ours": functools.partial(ours, run, args.queries),
            "LoadGen": lambda: run_loadgen(session, settings, next(logs))["ms"],
        }
        print(f"load {os.getloadavg()[0]:.2f} at the start, {args.turns} turns")
        found, left_out = quiet_turns(calls, args.turns, patience=args.patience, share=args.others)
        print(f"{left_out} turns left out, in which others worked")
        for name in ("p50", "p90"):
            pairs = zip(found["LoadGen"], found["ours"], strict=False)
            low, middle, high = np.percentile([a[name] / b[name] for a, b in pairs], [25, 50, 75])
            print(f"{name}: LoadGen / ours {middle:.3f} [{low:.3f}, {high:.3f}]")
        print(f"load {os.getloadavg()[0]:.2f} at the end")


def ours(run: Callable[[], object], rounds: int) -> dict[str, float]:
    """Our own figures, ms."""
    (timing,) = measure_latency([run], budget=Budget(rounds=rounds))
    return timing.summary()


if __name__ == "__main__":
    main()
