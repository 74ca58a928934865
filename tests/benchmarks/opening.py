"""What opening a bundle costs, against another checkout of vptkit (docs/security.md).

Both checkouts are loaded in one process, and take turns; bundles are written by this one.

    git worktree add /tmp/before COMMIT
    python tests/benchmarks/opening.py /tmp/before [--model vit_tiny_patch16_224 …] [--rounds 30]
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import timm

from vptkit.devices.probes.machine import detect_machine
from vptkit.export import export
from vptkit.export.bundle.baselines import random_weights
from vptkit.formats.adapter import Adapter, BackboneRef, write_adapter
from vptkit.formats.backbone_weights import digest_of_weights
from vptkit.formats.tensor_file import write_tensors
from vptkit.images.preprocess import Preprocess
from vptkit.tune.backbone.spec_from_timm import spec_from_model

MODULES = ("vptkit.formats.bundle", "vptkit.runtime", "vptkit.runtime.backends.onnxruntime_graph")


class Checkout:
    """One copy of vptkit, with modules of its own."""

    def __init__(self, root: Path) -> None:
        """Load it from a folder."""
        self._root, self._modules = str(root), {}
        self._in_turn(lambda: [importlib.import_module(name) for name in MODULES])

    def open_bundle(self, path: Path) -> float:
        """Seconds."""
        return self._in_turn(lambda: _seconds(MODULES[0], "open_bundle", path))

    def open_session(self, path: Path) -> float:
        """Seconds; the graph is loaded for one thread of the processor."""
        return self._in_turn(lambda: _seconds(MODULES[1], "open_session", path, "cpu", 1))

    def _in_turn(self, call: Any) -> Any:
        kept = {n: m for n, m in sys.modules.items() if n.partition(".")[0] == "vptkit"}
        for name in kept:
            del sys.modules[name]
        sys.modules.update(self._modules)
        sys.path.insert(0, self._root)
        try:
            return call()
        finally:
            sys.path.remove(self._root)
            mine = [n for n in sys.modules if n.partition(".")[0] == "vptkit"]
            self._modules = {name: sys.modules.pop(name) for name in mine}
            sys.modules.update(kept)


def _clock() -> float:
    return time.process_time() if "--cpu-time" in sys.argv else time.perf_counter()


def _seconds(module: str, name: str, *arguments: Any) -> float:
    function = getattr(sys.modules[module], name)
    begun = _clock()
    function(*arguments)
    return _clock() - begun


def bundle_of(name: str, folder: Path) -> Path:
    """A bundle of a timm model with random weights and ten deep prompts."""
    spec = spec_from_model(timm.create_model(name, num_classes=10))
    weights = random_weights(spec)
    rng = np.random.default_rng(0)
    tensors = {
        f"prompt.{i}": rng.standard_normal((10, spec.width)).astype(np.float32)
        for i in range(spec.depth)
    }
    tensors["head.weight"] = rng.standard_normal((10, spec.width)).astype(np.float32)
    tensors["head.bias"] = np.zeros(10, np.float32)
    adapter = Adapter(
        name="opening",
        backbone=BackboneRef(name=name, spec=spec, sha256=digest_of_weights(weights)),
        method="vpt",
        insert="deep",
        prompt_length=10,
        pool="token",
        norm="before_pool",
        labels=tuple(map(str, range(10))),
        preprocess=Preprocess(input_size=(3, *spec.image_size), mean=(0.5,) * 3, std=(0.5,) * 3),
    )
    write_tensors(folder / "weights.safetensors", weights)
    write_adapter(folder / "a.safetensors", replace(adapter, tensors=tensors))
    out = folder / f"{name}.vptk"
    export(folder / "a.safetensors", out, weights=folder / "weights.safetensors")
    return out


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("before", type=Path)
    names = ["vit_tiny_patch16_224", "vit_base_patch16_224"]
    parser.add_argument("--model", nargs="*", default=names)
    parser.add_argument("--bundle", nargs="*", type=Path, default=[])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--cpu-time", action="store_true", help="count processor time: for a busy machine"
    )
    args = parser.parse_args()
    before, now = Checkout(args.before), Checkout(Path(__file__).resolve().parents[2])
    print(f"onnxruntime {onnxruntime.__version__}, {args.rounds} rounds, {detect_machine()}")
    print("\n| bundle, MB | call | before, median ms | now | now ÷ before, paired: [quartiles] |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for path in [*args.bundle, *(bundle_of(name, Path(folder)) for name in args.model)]:
            size = sum(file.stat().st_size for file in path.iterdir()) / 1e6
            for call in ("open_bundle", "open_session"):
                row = measured(before, now, call, path, args.rounds)
                print(f"| {path.stem}, {size:.0f} | {call} | {row} |", flush=True)


def measured(before: Checkout, now: Checkout, call: str, path: Path, rounds: int) -> str:
    """Medians and the ratio of both, in turns of random order."""
    rng, times = np.random.default_rng(1), {before: [], now: []}
    for _ in range(rounds + 2):
        for one in rng.permutation([before, now]):
            times[one].append(1000 * getattr(one, call)(path))
    old, new = (np.array(values[2:]) for values in times.values())
    a, b, c = np.percentile(new / old, [25, 50, 75])
    return f"{np.median(old):.1f} | {np.median(new):.1f} | {b:.3f} [{a:.3f}, {c:.3f}]"


if __name__ == "__main__":
    main()
