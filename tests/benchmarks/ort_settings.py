"""ONNX Runtime's threads, waiting, and memory settings for one image on a few cores (docs/benchmarks.md).

Each setting is a session of its own, opened, warmed up, timed and closed again in every round, so that
threads that still spin do not meet the next one. A neighbour is a process on each core that never
rests. The first setting is what vptkit does with ONNX Runtime 1.26 and newer.

    python -m tests.benchmarks.ort_settings vitti.vptk --cores 2 --neighbour
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from tests.benchmarks.cpu_backends import quartiles
from vptkit.devices.probes.machine import detect_machine
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.measure.timing import random_images
from vptkit.runtime.session.session_protocol import graph_input

if TYPE_CHECKING:
    from collections.abc import Iterator

SPIN, STOP, FOR = (
    "session.intra_op.allow_spinning",
    "session.force_spinning_stop",
    "session.intra_op.spin_duration_us",
)
# Name → session's entries, and attributes of its options
SETTINGS: dict[str, dict[str, Any]] = {
    "spin 30 us (vptkit)": {SPIN: "1", FOR: "30"},
    "sleep": {SPIN: "0"},
    "spin (the library's)": {SPIN: "1"},
    "spin within a run": {SPIN: "1", STOP: "1"},
    "spin 5 us": {SPIN: "1", FOR: "5"},
    "spin 10 us": {SPIN: "1", FOR: "10"},
    "spin 20 us": {SPIN: "1", FOR: "20"},
    "spin 40 us": {SPIN: "1", FOR: "40"},
    "spin 50 us": {SPIN: "1", FOR: "50"},
    "spin 100 us": {SPIN: "1", FOR: "100"},
    "spin 1000 us": {SPIN: "1", FOR: "1000"},
    "30 us, finer blocks": {SPIN: "1", FOR: "30", "session.dynamic_block_base": "4"},
    "30 us, no arena": {SPIN: "1", FOR: "30", "enable_cpu_mem_arena": False},
    "30 us, no memory pattern": {SPIN: "1", FOR: "30", "enable_mem_pattern": False},
    "30 us, one thread": {SPIN: "1", FOR: "30", "intra_op_num_threads": 1},
}


def session(model: str, threads: int, settings: dict[str, Any]) -> Any:
    """A session as `onnxruntime_graph` opens it, but for some settings."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    for name, value in settings.items():
        if name.startswith("session."):
            options.add_session_config_entry(name, value)
        else:
            setattr(options, name, value)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    """So many processes that never rest, on the cores that this one may use."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def main() -> None:
    """Measure and print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--neighbour", action="store_true")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=6, help="of each setting in a round")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=[*SETTINGS])
    given = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.cores])
    bundle = open_bundle(given.bundle)
    feed = {bundle.input: graph_input(random_images(1, bundle.preprocess.size), bundle)}
    rng, load = np.random.default_rng(0), os.getloadavg()[0]
    found: dict[str, list[float]] = {name: [] for name in given.settings}
    with neighbours(given.cores if given.neighbour else 0):
        for _ in range(given.rounds):
            for name in rng.permutation(given.settings):
                opened = session(str(bundle.model), given.cores, SETTINGS[name])
                times = []
                for _ in range(given.calls + 2):
                    begun = time.perf_counter()
                    opened.run(None, feed)
                    times.append(1000 * (time.perf_counter() - begun))
                found[name].append(float(np.median(times[2:])))
                del opened
    base = np.array(found[given.settings[0]])
    print(
        f"{detect_machine()['cpu']}, {given.cores} cores, neighbour: {given.neighbour}, load {load:.1f}"
    )
    print(f"ONNX Runtime {onnxruntime.__version__}, {given.rounds} rounds of {given.calls} calls\n")
    print("| setting | ms | ÷ first |\n| --- | --- | --- |")
    for name, values in found.items():
        print(f"| {name} | {np.median(values):.1f} | {quartiles(np.array(values) / base)} |")


if __name__ == "__main__":
    main()
