"""What each tuning method costs: a training step, and the exported graph's latency.

Steps are interleaved in one process; a probe's are those behind cached features. Latency is that of
adapters which `evidence.py` trained, against the untuned backbone exported the usual way
(`vptkit profile --baseline`).

    python -m tests.benchmarks.method_costs --shared ../shared --adapters RUNS --backbone vit-ti
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vptkit.devices.probes.machine import detect_machine
from vptkit.tune.backbone.timm_backbone import create_backbone

from .cpu_backends import interleaved
from .evidence_cells import BACKBONES, METHODS, Cell, settings_of
from .training_steps import FULL, plain_step, tuned_step

CLASSES = 5
DONE_AT_ONCE = ("LN cyclic", "LN cyclic + λ")  # steps and graphs as those of "LN"
DONE_AT_ONCE += ("default", "auto")  # one of the others


def stepper(method: str, backbone: str, shared: Path, size: int) -> Any:
    """A call that makes one training step of `size` images."""
    config = settings_of(Cell("vptkit", backbone, "flowers5", 10, method, 0), shared)
    model: Any = create_backbone(config.backbone, config.backbone_args, config.weights)
    if method == FULL:
        model.reset_classifier(CLASSES)
        return plain_step(model.train().requires_grad_(requires_grad=True), CLASSES, size)
    return tuned_step(model, config, CLASSES, size)[1]


def step_times(backbone: str, shared: Path, size: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each method's steps, one of each in turn."""
    calls = {
        method: stepper(method, backbone, shared, size)
        for method in METHODS
        if method not in DONE_AT_ONCE
    }
    found = interleaved(calls, rounds)
    return {method: (1000 * taken[:, 0]).tolist() for method, taken in found.items()}


def vptkit(*words: Any) -> Any:
    """The document that a command prints."""
    command = [sys.executable, "-m", "vptkit", *map(str, words), "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def latencies(backbone: str, shared: Path, adapters: Path, batches: list[int]) -> dict[str, Any]:
    """Rows of a profile by name: the adapters, and the backbone without one."""
    with tempfile.TemporaryDirectory() as name:
        bundles = []
        for method in METHODS:
            adapter = (
                adapters / f"{Cell('vptkit', backbone, 'flowers5', 10, method, 0).name}.safetensors"
            )
            if method in DONE_AT_ONCE or not adapter.is_file():
                continue
            bundles.append(Path(name) / f"{method.replace(' ', '_')}.vptk")
            weights = shared / BACKBONES[backbone]["weights"]
            vptkit("export", adapter, "-o", bundles[-1], "--weights", weights)
        sizes = ",".join(map(str, batches))
        found = vptkit(
            "profile", *bundles, "--baseline", "--threads", 1, "--no-memory", "--batch", sizes
        )
    rows: dict[str, Any] = {}
    for row in found["rows"]:
        key = Path(row["path"]).stem.replace("_", " ") if row["path"] else row["name"]
        rows.setdefault(key, {})[row["batch"]] = row
    return rows


def main() -> None:
    """Measure and print a markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--adapters", type=Path, required=True)
    parser.add_argument("--backbone", choices=("vit-ti", "vit-s"), default="vit-ti")
    parser.add_argument("--size", type=int, default=16, help="images of a training step")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="of the latency")
    args = parser.parse_args()
    torch.set_num_threads(1)
    times = step_times(args.backbone, args.shared, args.size, args.rounds)
    rows = latencies(args.backbone, args.shared, args.adapters, args.batch)
    cpu = detect_machine()["cpu"]
    print(f"{args.backbone}, one thread, torch {torch.__version__}, {cpu}")
    heads = [f"step, {args.size} images (ms)", "÷ VPT-deep"]
    heads += [f"latency ÷ untuned, batch {batch}" for batch in args.batch]
    print("| method | " + " | ".join(heads) + " |\n" + "| --- " * (len(heads) + 1) + "|")
    for method, taken in times.items():
        ratio = np.median(np.array(taken) / np.array(times["VPT-deep"]))
        texts = [f"{np.median(taken):.1f}", f"{ratio:.2f}"]
        for batch in args.batch:
            found = rows.get(method, {}).get(batch)
            texts.append(
                "-"
                if found is None
                else "{value:.3f} [{low:.3f}, {high:.3f}]".format(**found["ratio"])
            )
        print(f"| {method} | " + " | ".join(texts) + " |")


if __name__ == "__main__":
    main()
