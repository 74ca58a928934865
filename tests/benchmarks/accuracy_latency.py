"""Accuracy beside latency: plain, merged tokens, int8, and both, of ViT-Ti, S and B (docs/benchmarks.md).

A linear probe on image sets, tuned with the merging that it is exported with, its strength chosen on `val`;
int8 is calibrated on `train`. `test` is asked once of each bundle, and what it said is kept: another bundle
in its place is refused. Of a ViT-B no pretrained weights are at hand: random ones give its latency, and
nothing its accuracy. Killed, the same command goes on.

    python -m tests.benchmarks.accuracy_latency RUNS --shared ../shared                 # make and judge
    python -m tests.benchmarks.accuracy_latency RUNS --shared ../shared --rounds 30 \\
        --rows docs/accuracy-latency.jsonl --plot docs/accuracy-latency.png             # then measure
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

import vptkit
from vptkit.backbones.merge_schedule import TokenMerging, merge_schedule
from vptkit.devices.probes.machine import cpu_has_vnni, detect_machine
from vptkit.export import ExportOptions, Lowering
from vptkit.export.bundle.baselines import random_weights
from vptkit.export.numerics.accuracy_gate import MIN_AGREEMENT, MIN_AGREEMENT_MERGED
from vptkit.export.numerics.evidence import Evidence
from vptkit.formats.adapter import Adapter, BackboneRef, write_adapter
from vptkit.formats.backbone_weights import digest_of_weights
from vptkit.formats.bundle import open_bundle
from vptkit.formats.tensor_file import write_tensors
from vptkit.images.preprocess import Preprocess
from vptkit.runtime.backends.onnxruntime_probe import OrtProbe
from vptkit.runtime.measure.timing import random_images

from .accuracy_latency_plot import plot
from .cpu_backends import interleaved
from .token_merging_cpu import Noise

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKENS = 12  # merged in each block but the last
VARIANTS = {  # name → precision, tokens merged a block
    "plain": ("fp32", 0),
    "merged": ("fp32", TOKENS),
    "int8": ("int8", 0),
    "merged + int8": ("int8", TOKENS),
}
CALIBRATION = 64  # images of train
QUARTERS = (25, 50, 75)


@dataclass(frozen=True)
class Model:
    """A network: its name in timm, and its weights below ../shared; None where they are random."""

    title: str
    name: str
    weights: str | None
    image_size: int | None = None


MODELS = (
    Model(
        "ViT-Ti/16",
        "vit_tiny_patch16_224",
        "weights/vit_tiny_patch16_224.augreg_in21k_ft_in1k/model.safetensors",
    ),
    Model(
        "ViT-S/14",
        "vit_small_patch14_dinov2",
        "weights/vit_small_patch14_dinov2.saliency/model.safetensors",
        224,
    ),
    Model("ViT-B/16", "vit_base_patch16_224", None),
)


def asked(args: argparse.Namespace) -> list[Model]:
    """The networks that are measured."""
    return [model for model in MODELS if model.title in args.models]


def bundle_of(args: argparse.Namespace, model: Model, data: str, variant: str) -> Path:
    """A bundle of one variant, tuned and exported unless it is there."""
    precision, tokens = VARIANTS[variant]
    stem = f"{model.name}-{data}-r{tokens}"
    output: Path = args.runs / f"{stem}-{precision}.vptk"
    if output.exists():
        return output
    images = args.shared / "data" / data
    adapter, weights = args.runs / f"{stem}.safetensors", args.runs / f"{model.name}.safetensors"
    # The bound is low: what int8 costs is what is asked for here
    options = ExportOptions(lowering=Lowering(precision=precision, min_agreement=0.0))
    if model.weights is None:
        random_probe(model, weights, adapter, tokens)
        vptkit.export(adapter, output, weights=weights, options=options, evidence=noise)
        return output
    weights = args.shared / model.weights
    if not adapter.exists():
        settings: dict[str, Any] = {"backbone": model.name, "weights": weights, "merge": tokens}
        vptkit.tune(
            images,
            adapter,
            method="linear",
            test=False,
            pictures="none",
            image_size=model.image_size,
            **settings,
        )
    judges = {"calibration": images / "train", "gate": images / "val"}
    vptkit.export(
        adapter,
        output,
        weights=weights,
        options=options,
        calibration_images=CALIBRATION,
        **({} if precision == "fp32" else judges),
    )
    return output


def random_probe(model: Model, weights: Path, output: Path, tokens: int) -> None:
    """A linear probe and a backbone of random numbers, for latency alone."""
    import timm

    from vptkit.tune.backbone.spec_from_timm import spec_from_model

    spec = spec_from_model(timm.create_model(model.name, num_classes=5))
    tensors = random_weights(spec)
    write_tensors(weights, tensors)
    rng = np.random.default_rng(0)
    head = {
        "head.weight": rng.standard_normal((5, spec.width)).astype(np.float32),
        "head.bias": np.zeros(5, np.float32),
    }
    adapter = Adapter(
        name=output.stem,
        backbone=BackboneRef(name=model.name, spec=spec, sha256=digest_of_weights(tensors)),
        method="linear",
        insert="none",
        prompt_length=0,
        pool="token",
        norm="before_pool",
        labels=tuple("abcde"),
        preprocess=Preprocess(input_size=(3, *spec.image_size), mean=(0.5,) * 3, std=(0.5,) * 3),
        merging=TokenMerging(schedule=merge_schedule(tokens, spec)) if tokens else None,
        tensors=head,
    )
    write_adapter(output, adapter)


def noise(adapter: Adapter) -> Evidence:
    """Random images: latency does not depend on what int8's ranges are."""
    from vptkit.export.graph.onnx_file import write_model

    def run(graph: Any) -> OrtProbe:
        return OrtProbe(lambda path: write_model(graph, path), adapter.preprocess, threads=1)

    return Evidence(run=run, calibration=Noise(adapter.preprocess.size))


def judged(args: argparse.Namespace, model: Model, data: str, variant: str) -> dict[str, Any]:
    """What `test` said of a bundle, which it is asked once, and what the gate said on `val`.

    Raises:
        SystemExit: it was asked of another bundle of this name.
    """
    bundle = bundle_of(args, model, data, variant)
    digest, gate = open_bundle(bundle).digest, open_bundle(bundle).manifest.get("gate")
    kept = args.runs / f"{bundle.stem}.test.json"
    if not kept.exists():
        images = args.shared / "data" / data
        found = vptkit.evaluate(bundle, images, split="test", threads=1, workers=1)
        wrong = sorted(Path(str(one.image)).name for one in found.mistakes)
        answer = {"bundle": digest, "count": found.count, "right": found.right, "wrong": wrong}
        kept.write_text(json.dumps(answer), encoding="utf-8")
        print(f"{bundle.stem}: {found.right} of {found.count}", flush=True)
    answer = json.loads(kept.read_text(encoding="utf-8"))
    if answer["bundle"] != digest:
        raise SystemExit(f"{kept}: test was asked of another bundle; {bundle} is not it")
    row = {"count": answer["count"], "right": answer["right"]}
    return row | {"data": data, "gate": None if gate is None else of_gate(gate, variant)}


def of_gate(gate: Mapping[str, Any], variant: str) -> dict[str, Any]:
    """Agreement with fp32 on `val`, and whether the usual bound would have held."""
    merged = VARIANTS[variant][1] > 0
    bound = MIN_AGREEMENT_MERGED if merged else MIN_AGREEMENT["int8"]
    shown = {key: gate[key] for key in ("count", "agreement", "sqnr_db")}
    return shown | {"bound": bound, "holds": gate["agreement"] >= bound}


def measured(args: argparse.Namespace, data: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Milliseconds of every bundle, those of a model interleaved, and their ratio to its plain one.

    One model at a time: all of them together push each other out of the caches.
    """
    load, rows = [os.getloadavg()[0]], []
    for model in asked(args):
        rows += _rows_of(args, model, data)
    machine = detect_machine()
    about = {
        "cpu": machine["cpu"],
        "vnni": cpu_has_vnni(),
        "threads": args.threads,
        "rounds": args.rounds,
        "load": [round(one, 1) for one in (*load, os.getloadavg()[0])],
        "versions": {"onnxruntime": onnxruntime.__version__},
    }
    return about, rows


def _rows_of(args: argparse.Namespace, model: Model, data: str) -> list[dict[str, Any]]:
    sessions = {
        variant: vptkit.open_session(
            bundle_of(args, model, data, variant), "cpu", threads=args.threads
        )
        for variant in VARIANTS
    }
    images = random_images(1, (224, 224))  # of all three models
    calls = {variant: partial(session.run, images) for variant, session in sessions.items()}
    times = interleaved(calls, args.rounds, untimed=1)
    macs = {name: one.bundle.manifest["macs"]["graph"] for name, one in sessions.items()}
    rows = []
    for variant in VARIANTS:
        own, base = times[variant], times["plain"]
        row: dict[str, Any] = {"model": model.title, "variant": variant}
        row["macs_ratio"] = macs[variant] / macs["plain"]
        for i, unit in enumerate(("wall", "processor")):
            row[f"{unit}_ms"] = [1000 * float(x) for x in np.percentile(own[:, i], QUARTERS)]
            ratios = np.percentile(own[:, i] / base[:, i], QUARTERS)
            row[f"{unit}_ratio"] = [float(x) for x in ratios]
        rows.append(row)
    return rows


def report(rows: list[dict[str, Any]], sets: list[str]) -> None:
    """The rows as a markdown table."""
    heads = ("model", "bundle", "multiply-accumulates", "processor's ms", "÷ plain, processor time")
    print(f"\n| {' | '.join((*heads, *(f'{data}, test' for data in sets)))} | int8 on val |")
    print("| --- " * (len(heads) + len(sets) + 1) + "|")
    for row in rows:
        low, middle, high = row["processor_ratio"]
        cells = [row["model"], row["variant"], f"{row['macs_ratio']:.3f}"]
        cells += [f"{row['processor_ms'][1]:.1f}", f"{middle:.3f} [{low:.3f}, {high:.3f}]"]
        known = [f"{one['right']} of {one['count']}" for one in row["sets"]]
        cells += known or ["not known"] * len(sets)
        gates = [one["gate"] for one in row["sets"] if one["gate"]]
        said = [
            f"{100 * one['agreement']:.0f} %{'' if one['holds'] else ' (fails)'}" for one in gates
        ]
        print(f"| {' | '.join([*cells, ', '.join(said)])} |")


def main() -> None:
    """Make and judge what is not there yet; with --rounds, measure, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="folder of adapters and bundles, used again")
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--data", nargs="+", default=["flowers5", "caltech20"])
    titles = [model.title for model in MODELS]
    parser.add_argument("--models", nargs="+", default=titles, choices=titles)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--rows", type=Path, help="where measured rows go, a JSON line each")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--redraw", action="store_true", help="the rows that are there")
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    if args.redraw:
        about, *rows = map(json.loads, args.rows.read_text(encoding="utf-8").splitlines())
    else:
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for data, model, variant in itertools.product(args.data, asked(args), VARIANTS):
            if model.weights is not None:
                row = judged(args, model, data, variant)
                found.setdefault((model.title, variant), []).append(row)
            elif data == args.data[0]:
                bundle_of(args, model, data, variant)
        if not args.rounds:
            return
        about, rows = measured(args, args.data[0])
        rows = [row | {"sets": found.get((row["model"], row["variant"]), [])} for row in rows]
    if args.rows and not args.redraw:
        lines = [json.dumps(one, ensure_ascii=False) for one in (about, *rows)]
        args.rows.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(about)
    report(rows, args.data)
    if args.plot:
        plot(about, rows, args.plot)


if __name__ == "__main__":
    main()
