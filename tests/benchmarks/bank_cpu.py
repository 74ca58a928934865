"""What a bank costs: 50 adapters of 50 deep prompts on ViT-B/16, against one baked bundle.

Size on disk, resident memory, a mixed batch of 8 (interleaved with the baked graph), the time to
add an adapter, and what switching adapters costs. Weights are random.

    python -m tests.benchmarks.bank_cpu [--adapters 50] [--prompts 50] [--rounds 30]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm

from vptkit.devices.probes.machine import detect_machine
from vptkit.export.bank.edit_bank import add, remove
from vptkit.export.bank.export_bank import export_bank
from vptkit.export.bundle.baselines import random_weights
from vptkit.export.bundle.export_bundle import export
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.formats.adapter import Adapter, BackboneRef, write_adapter
from vptkit.formats.backbone_weights import digest_of_weights
from vptkit.formats.tensor_file import write_tensors
from vptkit.images.preprocess import Preprocess
from vptkit.runtime import open_session
from vptkit.runtime.measure.memory_footprint import measure_memory
from vptkit.runtime.measure.timing import Budget, compare_medians, measure_latency, random_images
from vptkit.tune.backbone.spec_from_timm import spec_from_model

from .bank_arguments import bank_parser

BATCH = 8


def adapters(args: Any, folder: Path, **of_model: Any) -> tuple[list[Path], Path]:
    """One adapter file more than the bank shall hold, and the backbone's weights."""
    rng = np.random.default_rng(0)
    spec = spec_from_model(timm.create_model(args.model, num_classes=0, **of_model).eval())
    weights = random_weights(spec)
    write_tensors(folder / "weights.safetensors", weights)
    paths = []
    for number in range(args.adapters + 1):
        tensors: dict[str, Any] = {
            f"prompt.{i}": rng.standard_normal((args.prompts, spec.width)).astype(np.float32)
            for i in range(spec.depth)
        }
        tensors["head.weight"] = rng.standard_normal((args.classes, spec.width)).astype(np.float32)
        tensors["head.bias"] = np.zeros(args.classes, np.float32)
        adapter = Adapter(
            name=f"adapter-{number:02}",
            backbone=BackboneRef(name=args.model, spec=spec, sha256=digest_of_weights(weights)),
            method="vpt",
            insert="deep",
            prompt_length=args.prompts,
            pool="token",
            norm="before_pool",
            labels=tuple(f"class {i}" for i in range(args.classes)),
            preprocess=Preprocess(
                input_size=(3, *spec.image_size), mean=(0.5,) * 3, std=(0.5,) * 3
            ),
            tensors=tensors,
        )
        paths.append(folder / f"{adapter.name}.safetensors")
        write_adapter(paths[-1], replace(adapter, train={"number": number}))
    return paths, folder / "weights.safetensors"


def size(bundle: Path) -> float:
    """MiB of all files."""
    return sum(p.stat().st_size for p in bundle.rglob("*") if p.is_file()) / 2**20


def milliseconds(call: Any) -> float:
    """Of one call."""
    begun = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - begun)


def spread(values: list[float]) -> str:
    """Median [least, most]."""
    return f"{np.median(values):.1f} ms [{min(values):.1f}, {max(values):.1f}], {len(values)} times"


def main() -> None:
    """Measure and print."""
    parser = bank_parser(model="vit_base_patch16_224", adapters=50)
    parser.add_argument("--prompts", type=int, default=50)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths, weights = adapters(args, folder)
        options = ExportOptions(last_block=args.last_block)
        bank, baked = folder / "bank.vptk", folder / "baked.vptk"
        export_bank(paths[:-1], bank, weights=weights, options=options)
        export(paths[0], baked, weights=weights, options=options)
        print(detect_machine())
        print(f"{args.model}, {args.adapters} adapters of {args.prompts} deep prompts: {args}")
        print(f"size: {size(bank):.1f} / {size(baked):.1f} MiB = {size(bank) / size(baked):.3f}")
        held = [
            measure_memory(path, backend="cpu", batch=BATCH, threads=args.threads)
            for path in (bank, baked)
        ]
        if held[0] is not None and held[1] is not None:
            for kind in ("increase", "peak"):
                a, b = (getattr(memory, kind) for memory in held)
                print(f"memory ({kind}): {a:.0f} / {b:.0f} MiB = {a / b:.3f}")
        latency(bank, baked, args)
        editing(bank, paths[-1])


def latency(bank: Path, baked: Path, args: Any) -> None:
    """Mixed batches against the baked graph; one adapter for all; another one at each call."""
    many, one = open_session(bank, threads=args.threads), open_session(baked, threads=args.threads)
    names, images = many.bundle.adapter_names, random_images(BATCH, one.bundle.preprocess.size)
    turn = iter(range(10**9))
    calls = {
        "baked": lambda: one.run(images),
        "mixed": lambda: many.run(images, [names[i % len(names)] for i in range(BATCH)]),
        "bank, one adapter": lambda: many.run(images, names[0]),
        "bank, the next adapter each call": lambda: many.run(
            images, names[next(turn) % len(names)]
        ),
    }
    clock = time.process_time if args.cpu_time else time.perf_counter
    found = measure_latency(list(calls.values()), budget=Budget(rounds=args.rounds), clock=clock)
    for name, timing in zip(calls, found, strict=True):
        against = found[0] if name in ("baked", "mixed") else found[2]
        print(f"batch {BATCH}, {name}: {timing.summary()['p50']:.1f} ms", end="")
        print("" if timing is against else f", {compare_medians(timing, against).to_json()}")


def editing(bank: Path, adapter: Path) -> None:
    """Add and remove one adapter; the call that meets it first; the command line."""
    session = open_session(bank)
    images = random_images(1, session.bundle.preprocess.size)
    session.run(images, session.bundle.adapter_names[0])
    added, met, usual = [], [], []
    for _ in range(11):
        added.append(milliseconds(lambda: add(bank, adapter, name="new")))
        met.append(milliseconds(lambda: session.run(images, "new")))
        usual.append(milliseconds(lambda: session.run(images, "new")))
        remove(bank, "new")
    print(f"\nadd, library call: {spread(added)}")
    print(f"the call that meets it, batch 1: {spread(met)}; the next call: {spread(usual)}")
    command = [sys.executable, "-m", "vptkit", "bank"]
    shell = []
    for _ in range(5):
        begun = time.perf_counter()
        subprocess.run([*command, "add", bank, adapter], check=True, capture_output=True)
        shell.append(1000 * (time.perf_counter() - begun))
        subprocess.run([*command, "remove", bank, adapter.stem], check=True, capture_output=True)
    print(f"add, command line (a fresh process): {spread(shell)}")


if __name__ == "__main__":
    main()
