"""How much memory an engine of a graph needs, from the life times of its values.

TensorRT keeps a buffer only between kernels, so the graph is read as its kernels would be: what
works element by element, or only moves numbers, is done on the way out of (or into) the matrix
product, normalisation or reduction beside it; fused attention (16-bit operands) keeps no scores.
Assumed, not known: another compiler may fuse less. Against TensorRT-RTX 1.7.1 (SM86), the figures
of `Total Activation Memory` less 8 MiB that it adds to every engine, in MB, for 50 deep prompts:

                       here   TensorRT-RTX
ViT-B fp16, batch 1     2.27           2.00
ViT-B fp16, batch 32   72.7           74.0
ViT-B fp16, 1 to 32    72.7           83.7     (a free batch keeps more)
ViT-B fp32, batch 1     6.04           6.53
ViT-Ti fp16, batch 8    4.54           4.64
ViT-Ti int8, batch 8    3.03           4.65     (and weights 6.2 against 9.4)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from onnx import TensorProto, helper

from .dataflow import ELEMENTWISE, LAYOUT, inferred

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

__all__ = ["MANY", "memory_of", "peak_bytes"]

MANY = 32  # images; far enough from 1 that what does not grow with them is told apart

_CHEAP = (
    ELEMENTWISE
    | LAYOUT
    | {"Cast", "Clip", "Concat", "Erf", "Exp", "Expand", "HardSigmoid", "HardSwish", "Log", "Pow"}
    | {"Reciprocal", "Relu", "Sigmoid", "Split", "Sqrt", "Tanh", "Where"}
    | {"QuantizeLinear", "DequantizeLinear"}
)
_MATRIX = frozenset({"MatMul", "Gemm"})
_LOW = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})


def memory_of(model: onnx.ModelProto) -> dict[str, Any]:
    """What the manifest says about memory.

    Returns:
        {"weights_bytes": constants of the graph, "activation_bytes": {"fixed", "per_image"}: the
        most that lives between kernels at one time, inputs and outputs of the graph left out}.
    """
    batch = _fixed_batch(model)
    if batch is None:
        one, many = peak_bytes(model, 1), peak_bytes(model, MANY)
        each = math.ceil((many - one) / (MANY - 1))
        activations = {"fixed": max(one - each, 0), "per_image": each}
    else:
        activations = {"fixed": 0, "per_image": math.ceil(peak_bytes(model, batch) / batch)}
    return {
        "weights_bytes": _weights_bytes(model),
        "activation_bytes": activations,
    }


def _weights_bytes(model: onnx.ModelProto) -> int:
    """Constants as an engine holds them: one that the graph quantizes takes a byte a number."""
    quantized = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    return sum(
        math.prod(tensor.dims) * (1 if tensor.name in quantized else _width(tensor.data_type))
        for tensor in model.graph.initializer
    )


def peak_bytes(model: onnx.ModelProto, batch: int) -> int:
    """The most bytes of values between kernels that are needed at one time.

    Args:
        model: a finished graph; free dimensions but the batch (a bank's) are taken as one.
        batch: images, of a graph whose batch is free.
    """
    graph = _Kernels(model, batch)
    life = graph.life()
    change: dict[int, int] = {}
    for name, (first, last) in life.items():
        change[first] = change.get(first, 0) + graph.size(name)
        change[last + 1] = change.get(last + 1, 0) - graph.size(name)
    now = peak = 0
    for place in sorted(change):
        now += change[place]
        peak = max(peak, now)
    return peak


class _Kernels:
    """A graph as a list of kernels.

    A value is `kept` if a kernel other than its own reads it; every other value exists only inside
    a kernel, and stands for what it is computed from.
    """

    def __init__(self, model: onnx.ModelProto, batch: int) -> None:
        outside = _constants(model) | {value.name for value in model.graph.input}
        sizes = {
            d.dim_param: 1
            for value in model.graph.input
            for d in value.type.tensor_type.shape.dim
            if d.dim_param
        }
        first = model.graph.input[0].type.tensor_type.shape.dim
        if first and first[0].dim_param:
            sizes[first[0].dim_param] = batch
        self.types, self.shapes = inferred(model, sizes)
        self.nodes = [
            (node, [name for name in node.input if name and name not in outside])
            for node in model.graph.node
            if not outside.issuperset(node.output)
        ]
        self.low = {
            name
            for node, _ in self.nodes
            if node.op_type == "DequantizeLinear"
            for name in node.output
        }
        self.results = {value.name for value in model.graph.output}
        self.inside = self._attention()
        self.kept = self._kept()

    def size(self, name: str) -> int:
        """Bytes of a value; one that is dequantized on its way is stored quantized."""
        shape = self.shapes.get(name, ())
        width = 1 if name in self.low else _width(self.types[name])
        return math.prod(d or 1 for d in shape) * width

    def life(self) -> dict[str, tuple[int, int]]:
        """Kept value → places of the first and the last kernel that need it."""
        needs: dict[str, frozenset[str]] = {}
        life: dict[str, tuple[int, int]] = {}
        for place, (node, inputs) in enumerate(self.nodes):
            used = frozenset().union(*(needs.get(name, frozenset()) for name in inputs))
            for name in node.output:
                needs[name] = used
                if name in self.kept:
                    needs[name] = frozenset({name})
                    life[name] = (place, place)
                    for read in used:
                        life[read] = (life[read][0], place)
        return {name: ends for name, ends in life.items() if name not in self.results}

    def _attention(self) -> frozenset[str]:
        """Values between the two products of attention that one kernel does."""
        makers = {name: node for node, _ in self.nodes for name in node.output}
        found: set[str] = set()
        for node, inputs in self.nodes:
            if node.op_type not in _MATRIX or len(inputs) < 2:
                continue
            behind = _path(inputs[0], makers)
            if any(makers[name].op_type == "Softmax" for name in behind) and (
                self.types.get(inputs[1]) in _LOW
            ):
                found |= behind
        return frozenset(found)

    def _kept(self) -> frozenset[str]:
        """Values that a kernel reads which is not the one that makes them."""
        kept = set(self.results)
        for node, inputs in self.nodes:
            if node.op_type not in _CHEAP and node.op_type != "Shape":
                kept.update(name for name in inputs if name not in self.inside)
        return frozenset(kept | self._apart(kept))

    def _apart(self, kept: set[str]) -> set[str]:
        """Products that end in more than one kept value: they are written out once."""
        ends: dict[str, set[str]] = {}
        for node, inputs in reversed(self.nodes):
            mine = {end for name in node.output for end in ends.get(name, ())}
            mine |= {name for name in node.output if name in kept}
            if node.op_type in _CHEAP or self.inside.intersection(node.output):
                for name in inputs:
                    if name not in kept:
                        ends.setdefault(name, set()).update(mine)
        heavy = {
            name
            for node, _ in self.nodes
            if node.op_type not in _CHEAP and node.op_type != "Shape"
            for name in node.output
        }
        return {name for name in heavy - self.inside if len(ends.get(name, ())) > 1}


def _constants(model: onnx.ModelProto) -> set[str]:
    """Weights, and what is computed from nothing else."""
    found = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if all(not name or name in found for name in node.input):
            found.update(node.output)
    return found


def _path(name: str, makers: Mapping[str, onnx.NodeProto]) -> set[str]:
    """Values from the product behind a softmax to `name`; a mask that is added is not among them."""
    found: set[str] = set()
    while name in makers:
        found.add(name)
        node = makers[name]
        if node.op_type in _MATRIX:
            return found
        if node.op_type != "Softmax" and node.op_type not in _CHEAP:
            break
        name = next((other for other in node.input if other in makers), "")
    return set()


def _fixed_batch(model: onnx.ModelProto) -> int | None:
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    return dimensions[0].dim_value if dimensions and dimensions[0].HasField("dim_value") else None


def _width(kind: int) -> int:
    return int(helper.tensor_dtype_to_np_dtype(kind).itemsize)
