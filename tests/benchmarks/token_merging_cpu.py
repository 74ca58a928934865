"""int8 and merged tokens on ONNX Runtime CPU, beside the plain folded graph: docs/benchmarks.md.

ViT-B/16, 100 deep prompts, token pooling, batch 1; interleaved in one process. Weights and calibration
images are random: latency does not depend on them, nor does which tokens merge. Needs no torch, so
that it runs on a board or any lent machine.

    python -m tests.benchmarks.token_merging_cpu [--model s] [--threads 1] [--rounds 30] [--no-int8]
    python -m tests.benchmarks.token_merging_cpu --tokens        # int8 alone
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime

from tests.benchmarks.cpu_backends import interleaved, quartiles
from tests.support.plain_vit import plain_vit
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
from vptkit.images.preprocess import Preprocess
from vptkit.runtime.backends.onnxruntime_probe import OrtProbe

if TYPE_CHECKING:
    from vptkit.export.fold.folded_network import Folded
    from vptkit.formats.backbone_spec import BackboneSpec

PREPROCESS = Preprocess(input_size=(3, 224, 224), mean=(0.5,) * 3, std=(0.5,) * 3)
PROMPTS, HOW = 100, ("deep", "token", "before_pool")
MODELS = {"ti": (192, 3), "s": (384, 6), "b": (768, 12)}  # width, heads


class Noise:
    """Calibration images."""

    def __init__(self, size: tuple[int, int]) -> None:
        rng = np.random.default_rng(0)
        self.array = rng.integers(0, 256, (4, *size, 3), dtype=np.uint8)
        self.count, self.digest, self.truth = 4, "noise", None

    def batches(self):
        yield from self.array[:, None]


def network(width: int, heads: int) -> tuple[BackboneSpec, Folded]:
    """A random ViT/16 of 12 blocks with deep prompts, folded."""
    spec = plain_vit((224, 224), 16, width=width, depth=12, heads=heads)
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
    rows += [("fp32", r, "plain") for r in given.tokens if r == 12]
    if given.int8:
        rows += [("int8", r, attention) for _, r, attention in rows]
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
    parser.add_argument("--model", choices=MODELS, default="b")
    parser.add_argument("--int8", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args()
    spec, folded = network(*MODELS[given.model])
    opened = sessions(spec, folded, given)
    image = Noise((224, 224)).array[:1]
    calls = {name: partial(run, image) for name, (run, _) in opened.items()}
    found = interleaved(calls, given.rounds)
    machine = detect_machine()
    print(f"{machine['cpu']}, VNNI: {cpu_has_vnni()}, threads: {given.threads}")
    load = os.getloadavg()[0]
    print(f"ONNX Runtime {onnxruntime.__version__}, {given.rounds} rounds, load {load:.1f}\n")
    print("| graph | MACs ÷ first | median ms | ÷ first, paired | ms of the processor | ÷ first |")
    print("| --- | --- | --- | --- | --- | --- |")
    first, first_macs = next(iter(found.values())), next(iter(opened.values()))[1]
    for name, seconds in found.items():
        cells = [name, f"{opened[name][1] / first_macs:.3f}"]
        for n in (0, 1):  # on the wall, and of the processor, which other jobs do not lengthen
            cells.append(f"{1e3 * np.median(seconds[:, n]):.1f}")
            cells.append(quartiles(seconds[:, n] / first[:, n]))
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
