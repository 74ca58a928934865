"""Pixels for low precision: centred on zero, so that they and their weights fit small types.

The folded patch embedding takes pixels 0..255 and has weights W / (255 std), a good share of which
are subnormal in float16. (x - 128) / 128 is exact in float16, bfloat16 and (times 128) in int8, and
brings the weights back to their ordinary size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from vptkit.export.analysis.dataflow import LAYOUT, Dataflow, replace_nodes

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

__all__ = ["CENTRED", "centre_pixels"]

CENTRED = "images/centred"
_MIDDLE = 128.0


def centre_pixels(model: onnx.ModelProto) -> bool:
    """Rewrite a folded uint8 patch embedding in place: x W + b = y (128 W) + (128 Σ W + b).

    y = (x - 128) / 128, and Σ W sums over a patch's pixels.

    Returns:
        False, and nothing changed, where the graph does not multiply raw pixels by one constant
        matrix (float input, or pixels that are normalised by nodes of their own).
    """
    flow = Dataflow.of(model)
    cast = next((n for n in flow.readers.get("images", []) if n.op_type == "Cast"), None)
    product = _product_of(flow, cast.output[0]) if cast is not None else None
    if cast is None or product is None:
        # a crop may stand before the Cast
        cast = _cast_behind_layout(flow)
        product = _product_of(flow, cast.output[0]) if cast is not None else None
        if cast is None or product is None:
            return False
    w = np.asarray(flow.array(product.input[1]), dtype=np.float64)
    _replace(flow.constants[product.input[1]], w * _MIDDLE)
    _add_shift(flow, product, _MIDDLE * w.sum(axis=0))
    _insert_centring(model, cast)
    return True


def _cast_behind_layout(flow: Dataflow) -> onnx.NodeProto | None:
    value = "images"
    while True:
        readers = [n for n in flow.readers.get(value, []) if n.op_type in LAYOUT | {"Cast"}]
        if len(readers) != 1:
            return None
        if readers[0].op_type == "Cast":
            return readers[0]
        value = readers[0].output[0]


def _product_of(flow: Dataflow, value: str) -> onnx.NodeProto | None:
    """The MatMul with a constant matrix that a value reaches unchanged, as its only reader."""
    while True:
        readers = flow.readers.get(value, [])
        if len(readers) != 1:
            return None
        (node,) = readers
        if node.op_type == "MatMul":
            weight = flow.weight_of(node)
            return node if weight is not None and len(flow.readers[weight]) == 1 else None
        if node.op_type not in LAYOUT:
            return None
        value = node.output[0]


def _add_shift(flow: Dataflow, product: onnx.NodeProto, shift: NDArray[np.float64]) -> None:
    """Into the bias that follows if there is one of its own; else a new addition."""
    readers = flow.readers.get(product.output[0], [])
    if len(readers) == 1 and readers[0].op_type == "Add":
        for name in readers[0].input:
            constant = flow.constants.get(name)
            if constant is not None and len(flow.readers[name]) == 1:
                value = np.asarray(flow.array(name), dtype=np.float64)
                if value.shape and value.shape[-1] == len(shift):
                    _replace(constant, value + shift)
                    return
    output = product.output[0]
    product.output[0] = f"{output}/centred"
    bias = flow.model.graph.initializer.add()
    bias.CopyFrom(numpy_helper.from_array(shift.astype(np.float32), f"{output}/shift"))
    added = helper.make_node("Add", [product.output[0], bias.name], [output], name=f"{output}/add")
    _insert_behind(flow.model, product, added)


def _insert_centring(model: onnx.ModelProto, cast: onnx.NodeProto) -> None:
    output = cast.output[0]
    cast.output[0] = f"{output}/raw"
    for name, value in (("middle", _MIDDLE), ("share", 1.0 / _MIDDLE)):
        constant = model.graph.initializer.add()
        constant.CopyFrom(numpy_helper.from_array(np.float32(value), f"images/{name}"))
    moved = helper.make_node(
        "Sub", [cast.output[0], "images/middle"], ["images/moved"], name="images/moved"
    )
    scaled = helper.make_node("Mul", ["images/moved", "images/share"], [output], name=CENTRED)
    _insert_behind(model, cast, moved, scaled)


def _insert_behind(model: onnx.ModelProto, node: onnx.NodeProto, *new: onnx.NodeProto) -> None:
    nodes = list(model.graph.node)
    place = next(i for i, one in enumerate(nodes) if one.name == node.name) + 1
    replace_nodes(model, [*nodes[:place], *new, *nodes[place:]])


def _replace(tensor: onnx.TensorProto, value: NDArray[np.float64]) -> None:
    """Another value of the same shape, as float32."""
    if tensor.data_type != TensorProto.FLOAT:
        raise ValueError(f"{tensor.name}: expected float32")
    fresh = numpy_helper.from_array(value.astype(np.float32), tensor.name)
    tensor.CopyFrom(fresh)
