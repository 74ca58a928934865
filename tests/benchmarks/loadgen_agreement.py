"""LoadGen's SingleStream against our own rounds, in turns in one process (docs/profiling.md).

python -m tests.benchmarks.loadgen_agreement [--model vit_tiny_patch16_224] [--turns 10]
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
from pathlib import Path

import numpy as np

from tests.benchmarks.opening import bundle_of
from vptkit.runtime.loadgen.loadgen_settings import LoadGenSettings
from vptkit.runtime.loadgen.run_loadgen import run_loadgen
from vptkit.runtime.measure.timing import Budget, measure_latency, random_images
from vptkit.runtime.session.factory import open_session


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--bundle", type=Path, help="This one instead.")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--queries", type=int, default=100)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = args.bundle or bundle_of(args.model, 1, Path(folder))
        session = open_session(bundle, "cpu")
        images = random_images(1, session.bundle.preprocess.size)
        run = functools.partial(session.run, images)
        settings = LoadGenSettings(scenario="SingleStream", queries=args.queries)
        found: dict[str, list[float]] = {"p50": [], "p90": []}
        print(f"load {os.getloadavg()[0]:.2f} at the start, {args.turns} turns")
        for turn in range(args.turns):
            (timing,) = measure_latency([run], budget=Budget(rounds=args.queries))
            ours = timing.summary()
            theirs = run_loadgen(session, settings, Path(folder) / str(turn))["ms"]
            for name, ratios in found.items():
                ratios.append(theirs[name] / ours[name])
        for name, ratios in found.items():
            low, middle, high = np.percentile(ratios, [25, 50, 75])
            print(f"{name}: LoadGen / ours {middle:.3f} [{low:.3f}, {high:.3f}]")
        print(f"load {os.getloadavg()[0]:.2f} at the end")


if __name__ == "__main__":
    main()
