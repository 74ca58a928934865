"""Merged tokens on ONNX Runtime CPU, fp32 and int8, beside the plain folded graph: docs/benchmarks.md.

ViT-B/16, 100 deep prompts, token pooling, batch 1; interleaved in one process. Weights and calibration
images are random: latency does not depend on them, nor does which tokens merge. Needs no torch.

    python tests/benchmarks/token_merging_cpu.py [--threads 1] [--rounds 30] [--small] [--no-int8]
"""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime

from tests.benchmarks.int8_cpu import Noise
from vptkit.backbones.merge_schedule import TokenMerging, merge_schedule
from vptkit.devices.probes.machine import cpu_has_vnni, detect_machine
from vptkit.export.analysis.macs import folded_macs
from vptkit.export.bundle.baselines import random_weights
from vptkit.export.fold.fold_network import fold
from vptkit.export.graph.folded_graph import folded_graph
from vptkit.export.graph.graph_options import GraphOptions
from vptkit.export.numerics.evidence import Evidence
from vptkit.export.precision.lowering import Lowering, lower
from vptkit.formats.adapter import Adapter, BackboneRef
from vptkit.formats.backbone_spec import BackboneSpec
from vptkit.images.preprocess import Preprocess
from vptkit.runtime.backends.onnxruntime_probe import OrtProbe

if TYPE_CHECKING:
    from vptkit.export.fold.folded_network import Folded

PREPROCESS = Preprocess(input_size=(3, 224, 224), mean=(0.5,) * 3, std=(0.5,) * 3)
PROMPTS, HOW = 100, ("deep", "token", "before_pool")


def network(width: int, heads: int) -> tuple[BackboneSpec, Folded]:
    """A random ViT/16 of 12 blocks with deep prompts, folded."""
    spec = BackboneSpec(
        image_size=(224, 224), patch_size=(16, 16), width=width, depth=12, heads=heads,
        mlp_width=4 * width, activation="gelu", qkv_bias=True, proj_bias=True, patch_bias=True,
        norm_eps=1e-6, class_token=True, dist_token=False, registers=0, pos_embed="all",
        norm_pre=False, layer_scale=False, final_norm="norm", pool="token",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    tensors = {
        f"prompt.{i}": rng.standard_normal((PROMPTS, width)).astype(np.float32) for i in range(12)
    }
    tensors["head.weight"] = rng.standard_normal((10, width)).astype(np.float32)
    tensors["head.bias"] = np.zeros(10, np.float32)
    adapter = Adapter(
        name="bench", backbone=BackboneRef(name="bench", spec=spec), method="vpt", insert="deep",
        prompt_length=PROMPTS, pool="token", norm="before_pool",
        labels=tuple(str(i) for i in range(10)), preprocess=PREPROCESS, tensors=tensors,
    )  # fmt: skip
    return spec, fold(spec, random_weights(spec), adapter)


def merging_of(spec: BackboneSpec, r: int, attention: str = "proportional") -> TokenMerging | None:
    """So many tokens in every block but the last."""
    if not r:
        return None
    return TokenMerging(schedule=merge_schedule(r, spec), attention=attention)  # type: ignore[arg-type]


def session(model: onnx.ModelProto, threads: int) -> OrtProbe:
    """A graph, opened."""
    return OrtProbe(lambda path: onnx.save(model, path), PREPROCESS, threads=threads)


def int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in int8."""
    evidence = Evidence(run=lambda graph: session(graph, 1), calibration=Noise((224, 224)))
    return lower("bench", model, Lowering(precision="int8"), evidence).model


def sessions(spec: BackboneSpec, folded: Folded, given: argparse.Namespace) -> dict[str, tuple]:
    """Row → opened graph and its multiply-accumulates; the plain fp32 graph is the first."""
    rows = [("fp32", 0, "proportional")]
    rows += [("fp32", r, "proportional") for r in given.tokens]
    rows.append(("fp32", 12, "plain"))
    if given.int8:
        rows += [("int8", r, "proportional") for r in (0, *given.tokens)]
        rows.append(("int8", 12, "plain"))
    found = {}
    for precision, r, attention in rows:
        merging = merging_of(spec, r, attention)
        fused = "fused" if precision == "int8" else "separate"
        options = GraphOptions(batch=1, merging=merging, qkv=fused)
        model = folded_graph(spec, folded, *HOW, options)
        if precision == "int8":
            model = int8(model)
        macs = folded_macs(spec, PROMPTS, "deep", "token", "absorbed", merging)
        plain = ", plain attention" if attention == "plain" else ""
        found[f"{precision}, r = {r}{plain}"] = (session(model, given.threads), macs)
    return found


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--tokens", type=int, nargs="*", default=[8, 12, 16])
    parser.add_argument("--small", action="store_true", help="ViT-S instead")
    parser.add_argument("--int8", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args()
    spec, folded = network(*((384, 6) if given.small else (768, 12)))
    opened = sessions(spec, folded, given)
    image = Noise((224, 224)).array[:1]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in opened}
    for i in range(given.rounds + 2):
        for name, (run, _) in opened.items():
            start, used = time.perf_counter(), time.process_time()
            run(image)
            if i >= 2:
                passed = time.perf_counter() - start, time.process_time() - used
                times[name].append((passed[0] * 1e3, passed[1] * 1e3))
    machine = detect_machine()
    print(f"{machine['cpu']}, VNNI: {cpu_has_vnni()}, threads: {given.threads}")
    load = os.getloadavg()[0]
    print(f"ONNX Runtime {onnxruntime.__version__}, {given.rounds} rounds, load {load:.1f}\n")
    print("| graph | MACs ÷ first | median ms | ÷ first, paired | ms of the processor | ÷ first |")
    print("| --- | --- | --- | --- | --- | --- |")
    first, first_macs = next(iter(times)), next(iter(opened.values()))[1]
    for name, ms in times.items():
        medians = np.median(ms, axis=0)
        low, middle, high = np.percentile(np.divide(ms, times[first]), [25, 50, 75], axis=0)
        cells = [name, f"{opened[name][1] / first_macs:.3f}"]
        for n in (0, 1):  # on the wall, and of the processor, which other jobs do not lengthen
            cells += [f"{medians[n]:.1f}", f"{middle[n]:.3f} [{low[n]:.3f}, {high[n]:.3f}]"]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
