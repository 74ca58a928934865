"""Other forms of our graphs that ONNX Runtime might run faster, by graph surgery (docs/benchmarks.md).

Each bundle's graph is timed as it is, once more as a control of the same (what a copy costs or saves is
noise), and in the forms that fit it: of fp32 `MultiHeadAttention` and `SkipLayerNormalization`, ONNX
Runtime's own operators; of int8 `Gemm`s of two dimensions whose bias is int32 (they become `QGemm`),
and int8 products in the attention (its ranges are those of the timed image: for time alone).

    python -m tests.benchmarks.cpu_forms vitb.vptk vitb-int8.vptk --threads 1
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from tests.benchmarks.cpu_backends import interleaved, quartiles
from vptkit.devices.probes.machine import detect_machine
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.backends.onnxruntime_library import rest_soon
from vptkit.runtime.measure.timing import random_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

OURS = "com.microsoft"


class Surgery:
    """A graph whose nodes are replaced by others that give values of the same names."""

    def __init__(self, model: onnx.ModelProto, images: np.ndarray) -> None:
        self.model, self.graph, self.images = model, model.graph, images
        self.named = {node.name: node for node in self.graph.node}
        self.constants = {c.name: c for c in self.graph.initializer}
        self.made = {value: node for node in self.graph.node for value in node.output}

    def values(self, names: list[str]) -> dict[str, np.ndarray]:
        """Values within the graph, of the images."""
        whole = onnx.ModelProto.FromString(self.model.SerializeToString())
        whole.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
        found = session(whole, 1).run(names, {"images": self.images})
        return dict(zip(names, found, strict=True))

    def constant(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(self.constants[name])

    def add(self, name: str, value: np.ndarray) -> str:
        """A new constant."""
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def replace(self, gone: Iterable[str], new: list[onnx.NodeProto]) -> None:
        """Remove nodes by name, add others, and bring all into an order."""
        out = set(gone)
        waiting = [node for node in self.graph.node if node.name not in out] + new
        known = {""} | {c.name for c in self.graph.initializer} | {i.name for i in self.graph.input}
        ordered: list[onnx.NodeProto] = []
        while waiting:
            ready = [node for node in waiting if known.issuperset(node.input)]
            if not ready:
                raise ValueError(f"nothing makes an input of {waiting[0].name}")
            ordered += ready
            known.update(value for node in ready for value in node.output)
            waiting = [node for node in waiting if not known.issuperset(node.output)]
        del self.graph.node[:]
        self.graph.node.extend(ordered)

    def blocks(self) -> list[int]:
        """Blocks with ordinary queries; the last has one alone."""
        return [i for i in range(99) if f"blocks.{i}.attn.k/prefixed" in self.named]


def attention_operator(graph: Surgery) -> None:
    """`MultiHeadAttention`, prompts as its past."""
    graph.model.opset_import.append(helper.make_opsetid(OURS, 1))
    gone: list[str] = []
    new: list[onnx.NodeProto] = []
    for i in graph.blocks():
        name = f"blocks.{i}.attn"
        prefix = [graph.named[f"{name}.{c}/prefixed"].input[0] for c in "kv"]
        heads = int(graph.constant(graph.named[f"{name}.q/heads"].input[1])[2])
        inputs = [*(f"{name}.{c}" for c in "qkv"), "", "", "", *prefix]
        outputs = [f"{name}/rows", f"{name}/past.k", f"{name}/past.v"]
        options: dict[str, Any] = {"domain": OURS, "num_heads": heads, "scale": 1.0}
        new.append(helper.make_node("MultiHeadAttention", inputs, outputs, **options))
        inner = ("k_t", "scores", "softmax", "mix", "mix/rows", "rows")
        gone += [f"{name}/{part}" for part in inner]
        gone += [f"{name}.{c}/{part}" for c in "qkv" for part in ("heads", "bhte", "prefixed")]
    graph.replace(gone, new)


def norm_operator(graph: Surgery) -> None:
    """`SkipLayerNormalization`: the linear's bias, the residual and the norm that follows."""
    graph.model.opset_import.append(helper.make_opsetid(OURS, 1))
    gone: list[str] = []
    new: list[onnx.NodeProto] = []
    for i in graph.blocks():
        block = f"blocks.{i}"
        for add, linear, norm in (
            (f"{block}/add1", f"{block}.attn.proj", f"{block}.norm2"),
            (f"{block}/add2", f"{block}.mlp.fc2", f"blocks.{i + 1}.norm1"),
        ):
            rows, bias = graph.named[linear].input
            skip = next(value for value in graph.named[add].input if value != linear)
            flat = graph.add(f"{bias}/flat", graph.constant(bias).reshape(-1))
            scale, shift = graph.named[norm].input[1:]
            epsilon = next(a.f for a in graph.named[norm].attribute if a.name == "epsilon")
            new.append(
                helper.make_node(
                    "SkipLayerNormalization", [rows, skip, scale, shift, flat],
                    [norm, "", "", add], domain=OURS, epsilon=epsilon,
                )
            )  # fmt: skip
            gone += [add, linear, norm]
    graph.replace(gone, new)


def quantized_gemms(graph: Surgery) -> None:
    """Linears as Gemm of two dimensions; their bias becomes int32."""
    linears = [
        (node, graph.made[node.input[0]])
        for node in graph.graph.node
        if node.op_type == "Add" and node.input[1] in graph.constants
        if getattr(graph.made.get(node.input[0]), "op_type", "") == "MatMul"
    ]
    linears = [pair for pair in linears if _is_linear(graph, *pair)]
    shapes = graph.values([product.output[0] for _, product in linears])
    gone: list[str] = []
    new: list[onnx.NodeProto] = []
    flat: set[str] = set()
    for add, product in linears:
        name, (rows, columns) = product.name, (graph.made[value] for value in product.input)
        quantize = graph.made[rows.input[0]]
        scales = graph.constant(rows.input[1]) * graph.constant(columns.input[1])
        bias = np.rint(graph.constant(add.input[1]).reshape(-1) / scales).astype(np.int32)
        parts = [
            graph.add(f"{name}/bias", bias),
            graph.add(f"{name}/bias/scale", (scales * np.ones(len(bias))).astype(np.float32)),
            graph.add(f"{name}/bias/zero", np.zeros(len(bias), np.int32)),
        ]
        if quantize.name not in flat:
            flat.add(quantize.name)
            count = graph.constant(columns.input[0]).shape[0]
            to = graph.add(f"{quantize.name}/to", np.array([-1, count], np.int64))
            two = f"{quantize.name}/two"
            new.append(helper.make_node("Reshape", [quantize.input[0], to], [two], name=two))
            quantize.input[0] = two
        shape = np.array([-1, *shapes[product.output[0]].shape[1:]], np.int64)
        back = graph.add(f"{name}/shape", shape)
        wide, gemm = f"{name}/bias/wide", f"{name}/gemm"
        new += [
            helper.make_node("DequantizeLinear", parts, [wide], axis=0, name=wide),
            helper.make_node("Gemm", [*product.input, wide], [gemm], name=gemm),
            helper.make_node("Reshape", [gemm, back], [*add.output], name=f"{name}/back"),
        ]
        gone += [name, add.name]
    graph.replace(gone, new)


def _is_linear(graph: Surgery, add: onnx.NodeProto, product: onnx.NodeProto) -> bool:
    """Whether it multiplies int8 by int8, and adds one number to each column."""
    sides = [graph.made.get(value) for value in product.input]
    if [getattr(side, "op_type", "") for side in sides] != ["DequantizeLinear"] * 2:
        return False
    return graph.constant(add.input[1]).size == graph.constant(sides[1].input[0]).shape[1]


def int8_attention(graph: Surgery) -> None:
    """Scores and mixes of int8."""
    products = [
        graph.named[f"blocks.{i}.attn/{part}"] for i in graph.blocks() for part in ("scores", "mix")
    ]
    values = graph.values(sorted({value for node in products for value in node.input}))
    new: list[onnx.NodeProto] = []
    for node in products:
        for side, value in enumerate(node.input):
            shares = side == 0 and node.name.endswith("mix")  # of softmax: 0 to 1
            zero = np.uint8(0) if shares else np.int8(0)
            scale = np.float32(1 / 255 if shares else np.abs(values[value]).max() / 127)
            name = f"{node.name}/{side}"
            kept = [graph.add(f"{name}/scale", scale), graph.add(f"{name}/zero", zero)]
            q, dq = f"{name}/q", f"{name}/dq"
            new.append(helper.make_node("QuantizeLinear", [value, *kept], [q], name=q))
            new.append(helper.make_node("DequantizeLinear", [q, *kept], [dq], name=dq))
            node.input[side] = dq
    graph.replace((), new)


def session(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """A session as `onnxruntime_graph` opens it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    rest_soon(options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


FORMS: dict[str, dict[str, Callable[[Surgery], None]]] = {
    "fp32": {"MultiHeadAttention": attention_operator, "SkipLayerNormalization": norm_operator},
    "int8": {"QGemm": quantized_gemms, "int8 attention": int8_attention},
}


def main() -> None:
    """Measure and print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    machine, load = detect_machine(), os.getloadavg()[0]
    print(f"{machine['cpu']}: {' '.join(machine['cpu_features'] or ())}, load {load:.1f}")
    print(f"ONNX Runtime {onnxruntime.__version__}, {given.threads} threads, {given.rounds} rounds")
    print("\n| graph | ms | ÷ the graph as it is | difference |\n| --- | --- | --- | --- |")
    for path in given.bundles:
        bundle = open_bundle(path)
        feed = {"images": random_images(1, bundle.preprocess.size)}
        sessions = {}
        for name, form in {"as it is": None, "control": None, **FORMS[bundle.precision]}.items():
            model = onnx.load(bundle.model)
            if form is not None:
                form(Surgery(model, feed["images"]))
            sessions[name] = session(model, given.threads)
        calls = {n: lambda s=s, feed=feed: s.run(None, feed)[0] for n, s in sessions.items()}
        answers = {name: call() for name, call in calls.items()}
        found = interleaved(calls, given.rounds)
        base, expected = found["as it is"][:, 0], answers["as it is"]
        for name, seconds in found.items():
            wall, off = seconds[:, 0], np.abs(answers[name] - expected).max()
            row = f"{1000 * np.median(wall):.0f} | {quartiles(wall / base)}"
            print(f"| {path.stem}, {name} | {row} | {off / np.abs(expected).max():.1e} |")


if __name__ == "__main__":
    main()
