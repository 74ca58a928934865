"""int8 against fp32 on ONNX Runtime CPU, interleaved in one process.

ViT-B/16, 100 deep prompts, token pooling, batch 1. Weights and calibration images are random:
latency does not depend on them. Needs no torch, so that it runs on a board or any lent machine.

    python tests/benchmarks/int8_cpu.py [--threads 1] [--rounds 30] [--small]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import onnx
import onnxruntime

from vptkit.devices.probes.machine import cpu_has_vnni, detect_machine
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


class Noise:
    """Calibration images."""

    def __init__(self, size: tuple[int, int]) -> None:
        rng = np.random.default_rng(0)
        self.array = rng.integers(0, 256, (4, *size, 3), dtype=np.uint8)
        self.count, self.digest, self.truth = 4, "noise", None

    def batches(self):
        yield from self.array[:, None]


def graphs(prompts: int, small: bool) -> tuple[dict[str, onnx.ModelProto], Preprocess]:
    """fp32 and int8 of the same random network."""
    width, heads = (192, 3) if small else (768, 12)
    spec = BackboneSpec(
        image_size=(224, 224), patch_size=(16, 16), width=width, depth=12, heads=heads,
        mlp_width=4 * width, activation="gelu", qkv_bias=True, proj_bias=True, patch_bias=True,
        norm_eps=1e-6, class_token=True, dist_token=False, registers=0, pos_embed="all",
        norm_pre=False, layer_scale=False, final_norm="norm", pool="token",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    tensors = {
        f"prompt.{i}": rng.standard_normal((prompts, width)).astype(np.float32) for i in range(12)
    }
    tensors["head.weight"] = rng.standard_normal((10, width)).astype(np.float32)
    tensors["head.bias"] = np.zeros(10, np.float32)
    preprocess = Preprocess(input_size=(3, 224, 224), mean=(0.5,) * 3, std=(0.5,) * 3)
    adapter = Adapter(
        name="bench", backbone=BackboneRef(name="bench", spec=spec), method="vpt", insert="deep",
        prompt_length=prompts, pool="token", norm="before_pool",
        labels=tuple(str(i) for i in range(10)), preprocess=preprocess, tensors=tensors,
    )  # fmt: skip
    folded = fold(spec, random_weights(spec), adapter)
    how = "deep", "token", "before_pool"
    model = folded_graph(spec, folded, *how, GraphOptions(batch=1))
    fused = folded_graph(spec, folded, *how, GraphOptions(batch=1, qkv="fused"))

    def run(graph: onnx.ModelProto) -> OrtProbe:
        return OrtProbe(lambda path: onnx.save(graph, path), preprocess, threads=1)

    evidence = Evidence(run=run, calibration=Noise((224, 224)))
    int8 = lower("bench", fused, Lowering(precision="int8"), evidence).model
    return {"fp32": model, "int8": int8}, preprocess


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--small", action="store_true", help="ViT-Ti instead")
    given = parser.parse_args()
    models, preprocess = graphs(given.prompts, given.small)
    sessions = {
        name: OrtProbe(
            lambda path, model=model: onnx.save(model, path), preprocess, threads=given.threads
        )
        for name, model in models.items()
    }
    image = Noise((224, 224)).array[:1]
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for i in range(given.rounds + 3):
        for name, session in sessions.items():
            start = time.perf_counter()
            session(image)
            if i >= 3:
                times[name].append((time.perf_counter() - start) * 1e3)
    machine = detect_machine()
    print(f"{machine['cpu']}, VNNI: {cpu_has_vnni()}, threads: {given.threads}")
    print(f"ONNX Runtime {onnxruntime.__version__}, {given.rounds} interleaved rounds, batch 1")
    ratios = [a / b for a, b in zip(times["fp32"], times["int8"], strict=True)]
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    for name, ms in times.items():
        print(f"{name}: median {statistics.median(ms):.1f} ms")
    print(f"int8 is {middle:.2f} x faster (quartiles {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
