"""From `vptkit run BUNDLE IMAGE` typed to its answer, against the least that does the same work.

Processes, one at a time, in turns (docs/profiling.md). The bare one is `python -c`: it imports ONNX
Runtime and Pillow, opens the model with ONNX Runtime's defaults, and runs it once on the image,
scaled to the model's size. It checks no digest, knows no labels, and prints one number.
`--before` adds another checkout of vptkit. Rounds in which others worked are left out (`quiet`).

The parts come from runs of their own: `vptkit run` with the clock read at a few places.

    python -m tests.benchmarks.cold_start [--model vit_base_patch16_224] [--rounds 20]
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from tests.benchmarks.opening import bundle_of
from tests.support.checkouts import ratios
from tests.support.quiet import SHARE, quiet_turns
from vptkit.devices.probes.machine import detect_machine

_ROOT = Path(__file__).resolve().parents[2]
_BYTE_CODE = str(Path(tempfile.gettempdir()) / "vptkit-cold-start")

BARE = """
import sys
import numpy as np
import onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
value = session.get_inputs()[0]
height, width = value.shape[1:3]
image = Image.open(sys.argv[2]).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
logits = session.run(None, {value.name: np.asarray(image)[None]})[0]
print(int(logits.argmax()))
"""

PARTS = """
import json, os, sys, time
marks = {"interpreter": time.monotonic()}
import vptkit.cli.entry
marks["command line"] = time.monotonic()
import vptkit.runtime.session.factory, vptkit.runtime.session.prediction
import vptkit.runtime.bulk.prediction_writers, vptkit.runtime.bulk.feature_files
marks["imports of run"] = time.monotonic()
import onnxruntime
marks["import onnxruntime"] = time.monotonic()
from vptkit.runtime.session import baked_session, factory
opened, answered = factory.open_session, baked_session.GraphSession.answers
def open_session(*args, **options):
    marks["parsing"] = time.monotonic()
    found = opened(*args, **options)
    marks["digests and model load"] = time.monotonic()
    return found
def answers(*args):
    marks["image"] = time.monotonic()
    found = answered(*args)
    marks["first inference"] = time.monotonic()
    return found
factory.open_session, baked_session.GraphSession.answers = open_session, answers
sys.argv = ["vptkit", "run", sys.argv[1], sys.argv[2], "--backend", "cpu"]
try:
    vptkit.cli.entry.main()
finally:
    marks["answer printed"] = time.monotonic()
    sys.stderr.write("\\n" + json.dumps(marks))
"""


def seconds_of(command: list[str], checkout: Path = _ROOT) -> float:
    """Wall seconds of a process, from before its start to after its end."""
    begun = time.perf_counter()
    _run(command, checkout)
    return time.perf_counter() - begun


def parts_of(bundle: Path, image: Path, checkout: Path = _ROOT) -> dict[str, float]:
    """Part → seconds of one run of `vptkit run`."""
    last = time.monotonic()
    done = _run([sys.executable, "-c", PARTS, str(bundle), str(image)], checkout)
    ended = time.monotonic()
    found = {}
    for name, mark in {**json.loads(done.stderr.splitlines()[-1]), "end": ended}.items():
        found[name], last = mark - last, mark
    return found


def _run(command: list[str], checkout: Path) -> subprocess.CompletedProcess[str]:
    # Byte code is written, as in an installation
    environment = os.environ | {
        "PYTHONPATH": str(checkout.resolve()),
        "PYTHONPYCACHEPREFIX": _BYTE_CODE,
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    # Not from the present folder, where `python -m` would find another vptkit
    return subprocess.run(
        command, cwd="/", env=environment, capture_output=True, text=True, check=True
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--bundle", type=Path, help="This one instead.")
    parser.add_argument("--before", type=Path, help="Another checkout of vptkit.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--patience", type=float, default=600.0, help="Seconds.")
    parser.add_argument("--others", type=float, default=SHARE, help="Cores that others may take.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = (args.bundle or bundle_of(args.model, 1, Path(folder))).resolve()
        image = Path(folder) / "image.jpg"
        pixels = np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(image)
        turns = functools.partial(quiet_turns, patience=args.patience, share=args.others)
        measure(bundle, image, args.before, args.rounds, turns)


def measure(bundle: Path, image: Path, before: Path | None, rounds: int, turns: Any) -> None:
    """Print medians, ratios to the bare program, and the parts."""
    ours = [sys.executable, "-m", "vptkit", "run", str(bundle), str(image), "--backend", "cpu"]
    bare = [sys.executable, "-c", BARE, str(bundle / "model.onnx"), str(image)]
    calls = {
        "bare": lambda: seconds_of(bare),
        "vptkit run": lambda: seconds_of(ours),
        **({} if before is None else {"before": lambda: seconds_of(ours, before)}),
    }
    checkouts = {"vptkit run": _ROOT, **({} if before is None else {"before": before})}
    for call in calls.values():
        call()  # files are in memory, byte code is written
    load = os.getloadavg()[0]
    print(f"onnxruntime {onnxruntime.__version__}, {rounds} rounds, load {load:.2f} at the start")
    print(f"{detect_machine()}\n")
    found, left_out = turns(calls, rounds)
    print(f"{left_out} runs left out, in which others worked")
    kept = min(map(len, found.values()))
    seconds = {name: np.array(values[:kept]) for name, values in found.items()}
    for name in calls:
        against = "" if name == "bare" else f" | {ratios(seconds['bare'], seconds[name])}"
        print(f"{name}: {1000 * np.median(seconds[name]):.0f} ms of {kept} rounds{against}")
    parts = {name: functools.partial(parts_of, bundle, image, c) for name, c in checkouts.items()}
    for name, taken in turns(parts, max(rounds // 2, 3))[0].items():
        print(f"\nparts of {name}, median ms:")
        for part in taken[0]:
            print(f"  {part}: {1000 * np.median([one[part] for one in taken]):.0f}")
    print(f"\nload {os.getloadavg()[0]:.2f} at the end")


if __name__ == "__main__":
    main()
