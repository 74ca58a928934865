"""What opening a bundle costs, against another checkout of vptkit (docs/security.md).

Both checkouts are loaded in one process, and take turns; bundles are written by this one. Counted is
the processor's time.

    git worktree add /tmp/before b11a367
    python -m tests.benchmarks.opening /tmp/before [--model vit_tiny_patch16_224 …] [--rounds 30]
"""

from __future__ import annotations

import argparse
import functools
import itertools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import timm

from tests.support.checkouts import Checkout, in_turns, ratios
from vptkit.devices.probes.machine import detect_machine
from vptkit.export.bank.export_bank import export_bank
from vptkit.export.bundle.baselines import random_weights
from vptkit.export.bundle.export_bundle import export
from vptkit.formats.adapter import Adapter, BackboneRef, write_adapter
from vptkit.formats.backbone_weights import digest_of_weights
from vptkit.formats.tensor_file import write_tensors
from vptkit.images.preprocess import Preprocess
from vptkit.tune.backbone.spec_from_timm import spec_from_model

if TYPE_CHECKING:
    from vptkit.formats.backbone_spec import BackboneSpec

MODULES = ("vptkit.formats.bundle", "vptkit.runtime", "vptkit.runtime.backends.onnxruntime_graph")
CALLS = {"open_bundle": (MODULES[0],), "open_session": (MODULES[1], "cpu", 1)}  # one thread


def bundle_of(name: str, adapters: int, folder: Path) -> Path:
    """A bundle of a timm model with random weights; adapters of ten deep prompts, of 1 baked."""
    spec = spec_from_model(timm.create_model(name, num_classes=10))
    weights = random_weights(spec)
    write_tensors(folder / "weights.safetensors", weights)
    digest = digest_of_weights(weights)
    paths = [_adapter(name, spec, digest, i, folder) for i in range(adapters)]
    out = folder / f"{name}-{adapters}.vptk"
    if adapters == 1:
        export(paths[0], out, weights=folder / "weights.safetensors")
    else:
        export_bank(paths, out, weights=folder / "weights.safetensors")
    return out


def _adapter(name: str, spec: BackboneSpec, digest: str, number: int, folder: Path) -> Path:
    rng = np.random.default_rng(number)
    tensors = {
        f"prompt.{i}": rng.standard_normal((10, spec.width)).astype(np.float32)
        for i in range(spec.depth)
    }
    tensors["head.weight"] = rng.standard_normal((10, spec.width)).astype(np.float32)
    tensors["head.bias"] = np.zeros(10, np.float32)
    adapter = Adapter(
        name=f"opening-{number}",
        backbone=BackboneRef(name=name, spec=spec, sha256=digest),
        method="vpt",
        insert="deep",
        prompt_length=10,
        pool="token",
        norm="before_pool",
        labels=tuple(map(str, range(10))),
        preprocess=Preprocess(input_size=(3, *spec.image_size), mean=(0.5,) * 3, std=(0.5,) * 3),
    )
    path = folder / f"{number}.safetensors"
    write_adapter(path, replace(adapter, tensors=tensors))
    return path


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    names = ["vit_tiny_patch16_224", "vit_base_patch16_224"]
    parser.add_argument("--model", nargs="*", default=names)
    parser.add_argument("--adapters", nargs="*", type=int, default=[1, 10, 50])
    parser.add_argument("--bundle", nargs="*", type=Path, default=[])
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    before = Checkout(args.before, MODULES)
    now = Checkout(Path(__file__).resolve().parents[2], MODULES)
    print(f"onnxruntime {onnxruntime.__version__}, {args.rounds} rounds, {detect_machine()}")
    print(
        "\n| bundle, MB | call | before, median ms of CPU | now | now ÷ before, paired | fastest |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        made = itertools.product(args.model, args.adapters)
        for path in [*args.bundle, *(bundle_of(*one, Path(folder)) for one in made)]:
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
            for call in CALLS:
                row = measured(before, now, call, path, args.rounds)
                print(f"| {path.stem}, {size:.0f} | {call} | {row} |", flush=True)


def measured(before: Checkout, now: Checkout, call: str, path: Path, rounds: int) -> str:
    """Medians and the ratio of both."""
    module, *options = CALLS[call]
    one = {"before": before, "now": now}
    calls = {
        name: functools.partial(checkout.seconds, module, call, path, *options)
        for name, checkout in one.items()
    }
    found = {name: 1000 * seconds for name, seconds in in_turns(calls, rounds).items()}
    old, new = found["before"], found["now"]
    return f"{np.median(old):.1f} | {np.median(new):.1f} | {ratios(old, new)}"


if __name__ == "__main__":
    main()
