"""What low-rank deltas cost in a bank: 8 mixed adapters of rank 8 against one baked graph, batch 8.

The linears that are changed are chosen by --targets: queries and values (what most LoRAs change),
all of the attention, or every linear. Interleaved, so that a busy machine hurts both; the figure is
the ratio of medians. A bank whose adapters are only heads tells what the rest of a bank costs.
Weights are random.

    python -m tests.benchmarks.bank_deltas_cpu [--model vit_small_patch16_224] [--targets qv qkvo all]
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm

from vptkit.devices.probes.machine import detect_machine
from vptkit.export.bank.export_bank import export_bank
from vptkit.export.bundle.baselines import random_weights
from vptkit.export.bundle.export_bundle import export
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.formats.adapter import Adapter, BackboneRef, write_adapter
from vptkit.formats.backbone_weights import digest_of_weights, tensor_shapes
from vptkit.formats.tensor_file import write_tensors
from vptkit.images.preprocess import Preprocess
from vptkit.runtime import open_session
from vptkit.runtime.measure.timing import Budget, compare_medians, measure_latency, random_images
from vptkit.tune.backbone.spec_from_timm import spec_from_model

from .bank_arguments import bank_parser

# name → timm modules that are changed, and which thirds of a fused qkv
TARGETS: dict[str, tuple[tuple[str, ...], str]] = {
    "none": ((), ""),
    "qv": (("attn.qkv",), "qv"),
    "qkvo": (("attn.qkv", "attn.proj"), "qkv"),
    "all": (("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"), "qkv"),
}


def deltas(spec: Any, targets: str, rank: int, rng: np.random.Generator) -> dict[str, Any]:
    """Factors of every changed linear; queries, keys and values stacked as `vptkit import` does."""
    modules, letters = TARGETS[targets]
    found = {}
    for name, (out, inner) in (
        (n.removesuffix(".weight"), s) for n, s in tensor_shapes(spec).items() if len(s) == 2
    ):
        if not name.endswith(modules):
            continue
        parts = letters if name.endswith("qkv") else "x"
        a = rng.standard_normal((rank * len(parts), inner)) / np.sqrt(inner)
        b = np.zeros((out, rank * len(parts)))
        for n, letter in enumerate(parts):
            rows = (
                slice(0, out)
                if letter == "x"
                else slice(*(spec.width * ("qkv".index(letter) + k) for k in (0, 1)))
            )
            b[rows, n * rank : (n + 1) * rank] = 0.05 * rng.standard_normal(
                (rows.stop - rows.start, rank)
            )
        found |= {f"delta.{name}.a": a.astype(np.float32), f"delta.{name}.b": b.astype(np.float32)}
    return found


def adapters(args: Any, targets: str, folder: Path) -> tuple[list[Path], Path]:
    """Adapter files and the backbone's weights."""
    rng = np.random.default_rng(0)
    size = {} if args.image is None else {"img_size": args.image}
    spec = spec_from_model(timm.create_model(args.model, num_classes=0, **size).eval())
    weights = random_weights(spec)
    write_tensors(folder / "weights.safetensors", weights)
    paths = []
    for number in range(args.adapters):
        head = rng.standard_normal((args.classes, spec.width)).astype(np.float32)
        adapter = Adapter(
            name=f"adapter-{number:02}",
            backbone=BackboneRef(
                name=args.model, args=size, spec=spec, sha256=digest_of_weights(weights)
            ),
            method="lora",
            insert="none",
            prompt_length=0,
            pool="token",
            norm="before_pool",
            labels=tuple(f"class {i}" for i in range(args.classes)),
            preprocess=Preprocess(
                input_size=(3, *spec.image_size), mean=(0.5,) * 3, std=(0.5,) * 3
            ),
            tensors={
                "head.weight": head,
                "head.bias": np.zeros(args.classes, np.float32),
                **deltas(spec, targets, args.rank, rng),
            },
        )
        paths.append(folder / f"{adapter.name}.safetensors")
        write_adapter(paths[-1], adapter)
    return paths, folder / "weights.safetensors"


def measure(args: Any, targets: str, folder: Path) -> None:
    """One line: baked, mixed, and how they compare."""
    paths, weights = adapters(args, targets, folder)
    bank, baked = folder / "bank.vptk", folder / "baked.vptk"
    options = ExportOptions(last_block=args.last_block)
    export_bank(paths, bank, weights=weights, options=options)
    export(paths[0], baked, weights=weights, options=options)
    many, one = open_session(bank, threads=args.threads), open_session(baked, threads=args.threads)
    names, images = many.bundle.adapter_names, random_images(args.batch, one.bundle.preprocess.size)
    mixed = [names[i % len(names)] for i in range(args.batch)]
    clock = time.process_time if args.cpu_time else time.perf_counter
    calls = [lambda: one.run(images), lambda: many.run(images, mixed)]
    found = measure_latency(calls, budget=Budget(rounds=args.rounds), clock=clock)
    medians = [timing.summary()["p50"] for timing in found]
    print(
        f"{args.model}, {targets}, rank {args.rank}, {len(names)} adapters, batch {args.batch}: "
        f"baked {medians[0]:.1f} ms, mixed {medians[1]:.1f} ms, "
        f"{compare_medians(found[1], found[0]).to_json()}",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = bank_parser(model="vit_small_patch16_224", adapters=8)
    parser.add_argument("--image", type=int, help="side of the images [the model's]")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    print(detect_machine())
    for targets in args.targets:
        with tempfile.TemporaryDirectory() as name:
            measure(args, targets, Path(name))


if __name__ == "__main__":
    main()
