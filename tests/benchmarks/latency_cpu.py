"""Folded against unfolded against the bare backbone, on ONNX Runtime CPU (docs/benchmarks.md).

ViT-B/16, 100 deep prompts, token pooling, batch 1, fp32, all interleaved in one process. The bare
backbone comes from `torch.onnx.export`, TorchScript and (with onnxscript installed) dynamo.
Weights are random: latency does not depend on them.

    python tests/benchmarks/latency_cpu.py [--model vit_base_patch16_224] [--prompts 100]
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import timm
import torch

from vptkit.devices.probes.machine import detect_machine
from vptkit.export.fold.fold_network import fold
from vptkit.export.graph.folded_graph import folded_graph
from vptkit.export.graph.graph_options import GraphOptions
from vptkit.export.graph.unfolded_graph import unfolded_graph
from vptkit.formats.adapter import Adapter, BackboneRef
from vptkit.images.preprocess import Preprocess
from vptkit.tune.backbone.spec_from_timm import spec_from_model, weights_from_model


def graphs(name: str, prompts: int, folder: Path) -> dict[str, Path]:
    """Write every candidate; the bare backbone of TorchScript comes first: it is the yardstick."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    classes = 10
    model = timm.create_model(name, num_classes=classes).eval()
    spec, weights = spec_from_model(model), weights_from_model(model)
    tensors: dict[str, Any] = {
        f"prompt.{i}": rng.standard_normal((prompts, spec.width)).astype(np.float32)
        for i in range(spec.depth)
    }
    tensors["head.weight"] = model.head.weight.detach().numpy()
    tensors["head.bias"] = model.head.bias.detach().numpy()
    adapter = Adapter(
        name="bench",
        backbone=BackboneRef(name=name, spec=spec),
        method="vpt",
        insert="deep",
        prompt_length=prompts,
        pool="token",
        norm="before_pool",
        labels=tuple(str(i) for i in range(classes)),
        preprocess=Preprocess(input_size=(3, *spec.image_size), mean=(0.5,) * 3, std=(0.5,) * 3),
        tensors=tensors,
    )
    paths: dict[str, Path] = {}
    pixels = torch.randn(1, 3, *spec.image_size)
    paths["bare backbone, torch.onnx.export (TorchScript)"] = folder / "torchscript.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (pixels,), str(folder / "torchscript.onnx"), opset_version=17, dynamo=False
        )
        if importlib.util.find_spec("onnxscript"):
            paths["bare backbone, torch.onnx.export (dynamo)"] = folder / "dynamo.onnx"
            torch.onnx.export(
                model, (pixels,), str(folder / "dynamo.onnx"), dynamo=True, external_data=False
            )
    written = {
        "bare backbone, vptkit --fold none": unfolded_graph(
            spec, weights, adapter.without_prompts(), GraphOptions(batch=1)
        ),
        "unfolded, vptkit --fold none": unfolded_graph(
            spec, weights, adapter, GraphOptions(batch=1)
        ),
    }
    folded = fold(spec, weights, adapter)
    for last in ("absorbed", "query", "full"):
        for batch in (1, None):
            label = f"folded, last block {last}, batch {batch or 'dynamic'}"
            options = GraphOptions(batch=batch, last_block=last)  # type: ignore[arg-type]
            written[label] = folded_graph(spec, folded, "deep", "token", "before_pool", options)
    for number, (label, graph) in enumerate(written.items()):
        paths[label] = folder / f"{number}.onnx"
        paths[label].write_bytes(graph.SerializeToString())
    return paths


def session(path: Path, threads: int) -> Any:
    """A call without arguments that runs the graph once."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    opened = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    value = opened.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in value.shape]
    rng = np.random.default_rng(0)
    feed = (
        rng.integers(0, 256, shape, dtype=np.uint8)
        if "uint8" in value.type
        else rng.standard_normal(shape, dtype=np.float32)
    )
    return lambda: opened.run(None, {value.name: feed})


def main() -> None:
    """Measure and print a markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=detect_machine()["cores"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = graphs(args.model, args.prompts, Path(folder))
        calls = {name: session(path, args.threads) for name, path in paths.items()}
        for call in calls.values():
            for _ in range(3):
                call()
        times: dict[str, list[float]] = {name: [] for name in calls}
        rng = np.random.default_rng(1)
        for _ in range(args.rounds):
            for name in rng.permutation(list(calls)):
                begun = time.perf_counter()
                calls[name]()
                times[name].append(1000 * (time.perf_counter() - begun))
    base = np.array(next(iter(times.values())))
    print(
        f"{args.model}, {args.prompts} deep prompts, {args.rounds} rounds, {args.threads} threads"
    )
    print(f"onnxruntime {onnxruntime.__version__}, onnx {onnx.__version__}, {detect_machine()}")
    print("\n| graph | median ms | quartiles | ÷ first row, paired: median [quartiles] |")
    print("| --- | --- | --- | --- |")
    for name, values in times.items():
        ms = np.array(values)
        low, mid, high = np.percentile(ms, [25, 50, 75])
        a, b, c = np.percentile(ms / base, [25, 50, 75])
        print(f"| {name} | {mid:.1f} | {low:.1f} to {high:.1f} | {b:.3f} [{a:.3f}, {c:.3f}] |")


if __name__ == "__main__":
    main()
