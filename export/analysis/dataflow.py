"""A finished graph, read: who makes and who reads each value, its type and shape, its place.

The precision passes rest on operators and dataflow; of the names they use only the leading
`blocks.{i}` and what follows it (`attn`, `mlp`, …).
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, numpy_helper, shape_inference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "ELEMENTWISE",
    "LAYOUT",
    "LINEAR",
    "Dataflow",
    "groups_of",
    "in_islands",
    "inferred",
    "remove_output",
    "replace_nodes",
]

LINEAR = frozenset({"MatMul", "Gemm", "Conv"})
ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Abs", "Max", "Min"})
# What moves numbers without changing them.
LAYOUT = frozenset(
    {"Reshape", "Transpose", "Slice", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Gather"}
)

_BLOCK = re.compile(r"blocks\.(\d+)[./](.*)")
_ATTENTION = re.compile(r"(attn|norm1|ls1|[qkv]\b|[qkv]_)")
_MLP = re.compile(r"(mlp|ffn|norm2|ls2)")


@dataclass(frozen=True, slots=True)
class Dataflow:
    """Indices over one graph; they go stale when it is changed.

    Attributes:
        model: the graph.
        makers: value → the node that makes it (graph inputs and constants have none).
        readers: value → the nodes that read it.
        constants: name → initializer.
        types: value → element type (`TensorProto`), inferred.
        shapes: value → dimensions, None where unknown; a value without known rank is missing.
    """

    model: onnx.ModelProto
    makers: dict[str, onnx.NodeProto] = field(repr=False)
    readers: dict[str, list[onnx.NodeProto]] = field(repr=False)
    constants: dict[str, onnx.TensorProto] = field(repr=False)
    types: dict[str, int] = field(repr=False)
    shapes: dict[str, tuple[int | None, ...]] = field(repr=False)

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Dataflow:
        """Index a graph, with inferred types and shapes."""
        makers: dict[str, onnx.NodeProto] = {}
        readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            makers.update(dict.fromkeys(node.output, node))
            for name in dict.fromkeys(node.input):
                readers[name].append(node)
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        types, shapes = inferred(model)
        return cls(model, makers, dict(readers), constants, types, shapes)

    def array(self, name: str) -> NDArray[np.generic]:
        """The value of a constant."""
        return numpy_helper.to_array(self.constants[name])

    def is_float(self, name: str) -> bool:
        """Whether a value is floating-point."""
        return self.types.get(name) in _FLOATS

    def sources(self, name: str) -> Iterator[onnx.NodeProto]:
        """The node behind a value, looking through what only moves numbers."""
        node = self.makers.get(name)
        while node is not None:
            yield node
            node = self.makers.get(node.input[0]) if node.op_type in LAYOUT else None

    def origin(self, name: str) -> onnx.NodeProto | None:
        """The first node behind a value that does more than move numbers."""
        *_, last = [None, *self.sources(name)]
        return last

    def weight_of(self, node: onnx.NodeProto) -> str | None:
        """The constant matrix or kernel of a linear node, or None where both sides vary."""
        if node.op_type not in LINEAR or len(node.input) < 2:
            return None
        name = str(node.input[1])
        wanted = 4 if node.op_type == "Conv" else 2
        tensor = self.constants.get(name)
        if tensor is None or len(tensor.dims) != wanted or node.input[0] in self.constants:
            return None
        return name


_FLOATS = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
)


def inferred(
    model: onnx.ModelProto, sizes: Mapping[str, int] | None = None
) -> tuple[dict[str, int], dict[str, tuple[int | None, ...]]]:
    """Types and shapes of all values. Weights are declared, not copied: they may be gigabytes.

    Args:
        model: the graph.
        sizes: of free dimensions, by name; one that is not listed stays free.
    """
    skeleton = onnx.ModelProto()
    skeleton.ir_version = model.ir_version
    skeleton.opset_import.extend(model.opset_import)
    graph = skeleton.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    for value in graph.input:
        for dimension in value.type.tensor_type.shape.dim:
            if sizes and dimension.dim_param and dimension.dim_param in sizes:
                dimension.dim_value = sizes[dimension.dim_param]
    graph.output.extend(_unshaped(value) if sizes else value for value in model.graph.output)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.INT64:  # shapes depend on these
            graph.initializer.append(tensor)
        else:
            graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    # sizes that a graph computes from its input's are followed only where they are wanted
    graph = shape_inference.infer_shapes(
        skeleton, check_type=True, strict_mode=True, data_prop=bool(sizes)
    ).graph
    types: dict[str, int] = {t.name: t.data_type for t in model.graph.initializer}
    shapes: dict[str, tuple[int | None, ...]] = {
        t.name: tuple(t.dims) for t in model.graph.initializer
    }
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        types[value.name] = kind.elem_type
        if kind.HasField("shape"):
            shapes[value.name] = tuple(
                d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim
            )
    return types, shapes


def _unshaped(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    """The same output, its shape left to inference."""
    return onnx.helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, None)


def groups_of(model: onnx.ModelProto) -> dict[str, str]:
    """Node name → its group, in the order of the network.

    Groups are `patch` (all before the first block), `blocks.{i}.attn` (with norm1),
    `blocks.{i}.mlp` (with norm2), `blocks.{i}.residual` (the rest of a block: the additions), and
    `head` (all behind the last block: norm, pooling, logits).
    """
    groups: dict[str, str] = {}
    outside = "patch"
    for node in model.graph.node:
        match = _BLOCK.match(node.name)
        if match is None:
            groups[node.name] = outside
            continue
        outside = "head"
        number, rest = match.groups()
        part = "attn" if _ATTENTION.match(rest) else "mlp" if _MLP.match(rest) else "residual"
        groups[node.name] = f"blocks.{number}.{part}"
    return groups


def in_islands(group: str, islands: tuple[str, ...]) -> bool:
    """Whether a group is, or lies within, one of the named islands (`blocks.3` is all of it)."""
    return any(group == name or group.startswith(f"{name}.") for name in islands)


def replace_nodes(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Give a graph another list of nodes, in place."""
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def remove_output(model: onnx.ModelProto, name: str) -> None:
    """Take an output from a graph, and what nothing else reads, in place."""
    graph = model.graph
    read = {value.name for value in graph.output} - {name}
    idle = []
    for i in reversed(range(len(graph.node))):
        node = graph.node[i]
        if read & set(node.output):
            read |= set(node.input)
        else:
            idle.append(i)
    for i in idle:  # from the last to the first, so that the numbers stay right
        del graph.node[i]
    for values in (graph.output, graph.initializer):
        for i in reversed(range(len(values))):
            if values[i].name not in read:
                del values[i]
