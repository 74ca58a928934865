"""A typed graph as a CPU can run it: arithmetic in fp32, every low value rounded to its type.

ONNX Runtime's CPU provider has few kernels for float16 and none for bfloat16 or float8. Rounding
each result is what a GPU does that accumulates in fp32 and writes the low type; it fuses more, and
so rounds less often.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper, numpy_helper

from vptkit.export.analysis.dataflow import LAYOUT, Dataflow, replace_nodes
from vptkit.export.graph.onnx_file import read_model, write_model
from vptkit.formats.bundle import MODEL, write_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from vptkit.formats.bundle import Bundle

__all__ = ["needs_simulation", "simulated", "write_simulated"]

_LOW = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
_EXACT = LAYOUT | {"Expand", "Concat", "Split", "Relu", "Max", "Min", "Where", "Tile", "Pad"}


def needs_simulation(model: onnx.ModelProto) -> bool:
    """Whether a graph computes in a type that the CPU provider does not."""
    elements = {tensor.data_type for tensor in model.graph.initializer}
    casts = {a.i for n in model.graph.node if n.op_type == "Cast" for a in n.attribute}
    return bool((elements | casts) & (_LOW | {TensorProto.FLOAT8E4M3FN}))


def simulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that any provider runs, with the rounding of the original.

    Args:
        model: typed, from `half_precision.typed` (Q/DQ included).

    Returns:
        The same inputs (low ones become float32) and outputs, all arithmetic in float32.
    """
    flow, copy = Dataflow.of(model), onnx.ModelProto()
    copy.CopyFrom(model)
    for value in copy.graph.input:
        if value.type.tensor_type.elem_type in _LOW:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in copy.graph.initializer:
        if tensor.data_type in _LOW:
            value = numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        low = flow.types.get(node.output[0], 0)
        if node.op_type == "Cast" and low in _LOW:
            _retarget(node)
        rounded = low in _LOW and node.op_type not in _EXACT
        behind = _rounding(node, low) if rounded else []  # it renames the node's output
        nodes += [*_float8_spelled_out(copy, node, flow), *behind]
    replace_nodes(copy, nodes)
    return copy


def write_simulated(bundle: Bundle, folder: Path) -> None:
    """A copy of a bundle around the simulated graph, for sessions on a CPU.

    Args:
        bundle: of any precision.
        folder: an existing empty folder; nothing is written elsewhere: the names of a bundle's files
            are plain (`manifest_schema`), and content is copied, not links.

    Raises:
        BundleError: one of its files was changed.
    """
    kept = {k: v for k, v in bundle.manifest.items() if k not in ("format", "files")}
    for name in bundle.manifest["files"]:
        if name not in bundle.graph_files:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(bundle.read(name))
    write_model(simulated(read_model(bundle)), folder / MODEL)
    write_manifest(folder, kept)


def _retarget(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name == "to":
            attribute.i = TensorProto.FLOAT


def _float8_spelled_out(
    model: onnx.ModelProto, node: onnx.NodeProto, flow: Dataflow
) -> list[onnx.NodeProto]:
    """The node itself, or a float8 Q or DQ as casts and a scaling: the same numbers.

    ONNX Runtime's optimizer moves Q/DQ pairs over a Transpose that it doesn't have in float8, and
    then refuses the graph (1.20 to 1.29; not 1.32).
    """
    zero = flow.constants.get(node.input[2]) if len(node.input) > 2 else None
    if zero is None or zero.data_type != TensorProto.FLOAT8E4M3FN:
        return [node]
    x, scale, name, y = node.input[0], node.input[1], node.name, node.output[0]
    if zero.dims:  # one scale for each index of an axis of a constant
        axis = next(a.i for a in node.attribute if a.name == "axis")
        shape = [1] * len(flow.constants[x].dims)
        shape[axis] = zero.dims[0]
        value = numpy_helper.to_array(flow.constants[scale]).astype("float32").reshape(shape)
        scale = f"{name}/scale"
        model.graph.initializer.append(numpy_helper.from_array(value, scale))
    middle = f"{name}/scaled" if node.op_type == "QuantizeLinear" else f"{name}/float"
    if node.op_type == "QuantizeLinear":
        return [
            helper.make_node("Div", [x, scale], [middle], f"{name}/div"),
            helper.make_node("Cast", [middle], [y], name, to=TensorProto.FLOAT8E4M3FN),
        ]
    return [
        helper.make_node("Cast", [x], [middle], f"{name}/cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [middle, scale], [y], name),
    ]


def _rounding(node: onnx.NodeProto, low: int) -> list[onnx.NodeProto]:
    """Cast down and up again, behind a node, under the value's own name."""
    name = node.output[0]
    node.output[0] = f"{name}/exact"
    down = helper.make_node("Cast", [f"{name}/exact"], [f"{name}/low"], f"{name}/down", to=low)
    up = helper.make_node("Cast", [f"{name}/low"], [name], f"{name}/up", to=TensorProto.FLOAT)
    return [down, up]
