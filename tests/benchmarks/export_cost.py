"""Seconds and memory of `vptkit export`, against another checkout of vptkit (docs/benchmarks.md).

Every export is a process of its own, as a user starts it; both checkouts take turns. Weights are
random, of the sizes of a timm model; images are noise, and no gate refuses anything. Told are the
clock's seconds, the processor's seconds, and the most memory that the whole process had (VmHWM).

    git worktree add /tmp/before 463d35e
    python -m tests.benchmarks.export_cost [/tmp/before] [--model vit_base_patch16_224]
        [--prompts 100] [--case fp32 fp16 …] [--rounds 5] [--folder PLACE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
import torch
from PIL import Image

import vptkit
from tests.support.children import run_child
from vptkit.devices.probes.machine import detect_machine
from vptkit.formats.adapter import Adapter, BackboneRef, write_adapter
from vptkit.formats.backbone_weights import tensor_shapes
from vptkit.images.preprocess import Preprocess
from vptkit.tune.backbone.spec_from_timm import spec_from_model

if TYPE_CHECKING:
    from vptkit.formats.backbone_spec import BackboneSpec

HERE = Path(__file__).resolve().parents[2]
ADAPTERS = 8
LIMIT = 540.0  # seconds of one export
CASES: dict[str, list[str]] = {
    "fp32": [],
    "fp32, verified": ["--verify"],
    "fp16": ["--precision", "fp16"],
    "int8, 32 images": [
        "--precision",
        "int8",
        "--calibration",
        "IMAGES",
        "--calibration-images",
        "32",
    ],
    f"bank of {ADAPTERS}": ["--layout", "bank"],
    "merge 12, gate of 32 images": [
        "--merge",
        "12",
        "--gate",
        "IMAGES",
        "--min-merge-agreement",
        "0",
    ],
}
CHILD = """
import json, sys, time
begun = time.perf_counter()
from vptkit.cli import main
sys.argv = ["vptkit", *sys.argv[1:]]
code = 0
try:
    main()
except SystemExit as end:
    code = end.code or 0
text = open("/proc/self/status").read()
peak = int(text.split("VmHWM:")[1].split()[0]) << 10
print(json.dumps({"code": code, "cpu": time.process_time(), "peak": peak}))
"""


def write_weights(path: Path, spec: BackboneSpec) -> int:
    """A safetensors file of random weights, written one by one; its bytes."""
    rng, header, end = np.random.default_rng(0), {}, 0
    shapes = tensor_shapes(spec)
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        offsets = [end, end + size]
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": offsets}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            value = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
            value += np.float32("norm" in name and name.endswith("weight"))
            stream.write(value.tobytes())
    return end


def write_adapters(folder: Path, name: str, spec: BackboneSpec, prompts: int) -> list[Path]:
    """Adapters of deep prompts."""
    paths = []
    for number in range(ADAPTERS):
        rng = np.random.default_rng(number)
        tensors = {
            f"prompt.{i}": rng.standard_normal((prompts, spec.width)).astype(np.float32)
            for i in range(spec.depth)
        }
        tensors["head.weight"] = rng.standard_normal((10, spec.width)).astype(np.float32)
        tensors["head.bias"] = np.zeros(10, np.float32)
        adapter = Adapter(
            name=f"cost-{number}",
            backbone=BackboneRef(name=name, spec=spec),
            method="vpt",
            insert="deep",
            prompt_length=prompts,
            pool="token",
            norm="before_pool",
            labels=tuple(map(str, range(10))),
            preprocess=Preprocess(
                input_size=(3, *spec.image_size), mean=(0.5,) * 3, std=(0.5,) * 3
            ),
            tensors=tensors,
        )
        paths.append(folder / f"{number}.safetensors")
        write_adapter(paths[-1], adapter)
    return paths


def write_images(folder: Path, count: int) -> Path:
    """Pictures of noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((256, 256)).save(folder / f"{i}.png")
    return folder


def exported(checkout: Path, words: list[Any], folder: Path) -> dict[str, float]:
    """One export by one checkout."""
    out = folder / "out.vptk"
    environment = {**os.environ, "PYTHONPATH": str(checkout), "XDG_CACHE_HOME": str(folder)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's second export, not the first
    begun = time.perf_counter()
    command = [sys.executable, "-c", CHILD, "export", *words, "-o", out, "--force"]
    done = run_child(command, env=environment, limit=LIMIT, cwd=folder)
    found = {"wall": time.perf_counter() - begun, **json.loads(done.stdout.splitlines()[-1])}
    if found["code"]:
        raise SystemExit(done.stderr)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, nargs="?")
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--case", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write; the system's unless given")
    args = parser.parse_args()
    checkouts = {"now": HERE}
    if args.before is not None:
        checkouts = {"before": args.before.resolve(), **checkouts}
    with torch.device("meta"):
        spec = spec_from_model(timm.create_model(args.model, num_classes=10))
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        folder = Path(place)
        size = write_weights(folder / "w.safetensors", spec)
        adapters = write_adapters(folder, args.model, spec, args.prompts)
        images = write_images(folder / "images", 32)
        machine = detect_machine()
        print(
            f"vptkit {vptkit.__version__}, numpy {np.__version__}, {args.rounds} rounds, {machine}"
        )
        print(f"{args.model}: {size / 1e6:.0f} MB of weights, load {os.getloadavg()[0]:.1f}")
        print("\n| case | checkout | s, median [fastest] | s of CPU | peak MB | ÷ weights |")
        print("| --- | --- | --- | --- | --- | --- |", flush=True)
        for case in args.case:
            inputs = adapters if case.startswith("bank") else adapters[:1]
            words: list[Any] = [*inputs, "--weights", folder / "w.safetensors"]
            words += [images if word == "IMAGES" else word for word in CASES[case]]
            words += [] if "--verify" in words else ["--no-verify"]
            rows: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
            for _ in range(args.rounds):
                for name, checkout in checkouts.items():
                    rows[name].append(exported(checkout, words, folder))
            for name, found in rows.items():
                wall = [one["wall"] for one in found]
                cpu = float(np.median([one["cpu"] for one in found]))
                peak = max(one["peak"] for one in found)
                print(
                    f"| {case} | {name} | {np.median(wall):.1f} [{min(wall):.1f}] | {cpu:.1f} | "
                    f"{peak / 1e6:.0f} | {peak / size:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
