"""Bundles on the processor's backends, interleaved in one process (docs/benchmarks.md).

Wall time, and processor time of all threads, which other work on the machine moves less; ratios are of
the runs of one round. What `vptkit profile --backend cpu,openvino` measures too, without processor time.

    python -m tests.benchmarks.cpu_backends A.vptk A-int8.vptk --threads 1 --rounds 20
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vptkit.devices.probes.machine import detect_machine
from vptkit.runtime.measure.timing import random_images
from vptkit.runtime.session.factory import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["interleaved", "quartiles"]

WARM_UP = 2


def interleaved(
    calls: Mapping[str, Callable[[], object]], rounds: int, *, untimed: int = 0
) -> dict[str, np.ndarray]:
    """Name → seconds of each run: float64 [rounds, 2], by the wall and of the processor.

    Args:
        calls: what is timed.
        rounds: so many runs of each.
        untimed: further runs before each of them, so that caches and pages are its own again.
    """
    rng = np.random.default_rng(0)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for number in range(-WARM_UP, rounds):
        for name in rng.permutation(list(calls)):
            for _ in range(untimed):
                calls[name]()
            wall, processor = time.perf_counter(), time.process_time()
            calls[name]()
            taken = time.perf_counter() - wall, time.process_time() - processor
            if number >= 0:
                found[name].append(taken)
    return {name: np.array(values) for name, values in found.items()}


def quartiles(values: np.ndarray) -> str:
    """As "0.300 [0.290, 0.310]"."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Measure and print a markdown table; the first row is what the others are compared with."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--backends", nargs="+", default=["cpu", "openvino", "openvino-bf16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batch", type=int, default=1)
    given = parser.parse_args()
    sessions = {
        f"{path.stem}, {backend}": open_session(path, backend, given.threads)
        for path in given.bundles
        for backend in given.backends
    }
    first = next(iter(sessions.values()))
    images = random_images(given.batch, first.bundle.preprocess.size)
    calls = {name: lambda s=session: s.run(images) for name, session in sessions.items()}
    machine, load = detect_machine(), os.getloadavg()[0]
    found = interleaved(calls, given.rounds)
    versions = {k: v for session in sessions.values() for k, v in session.versions.items()}
    print(f"{machine['cpu']}: {' '.join(machine['cpu_features'] or ())}")
    print(f"{versions}, {given.threads} threads, batch {given.batch}, {given.rounds} rounds")
    print(f"load {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end\n")
    print("| bundle, backend | ms | ÷ first | processor's ms | ÷ first |")
    print("| --- | --- | --- | --- | --- |")
    base = next(iter(found.values()))
    for name, seconds in found.items():
        wall, processor = 1000 * np.median(seconds, axis=0)
        ratios = [quartiles(seconds[:, i] / base[:, i]) for i in range(2)]
        print(f"| {name} | {wall:.0f} | {ratios[0]} | {processor:.0f} | {ratios[1]} |")


if __name__ == "__main__":
    main()
