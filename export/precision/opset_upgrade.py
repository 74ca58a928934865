"""Opset 17 to 19: needed where scales are fp16 or values float8 (QuantizeLinear-19)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    import onnx

__all__ = ["QDQ_IR_VERSION", "QDQ_OPSET", "raise_opset"]

QDQ_OPSET = 19
QDQ_IR_VERSION = 9
# Of what we write, opset 18 changed these: their axes became an input.
_REDUCTIONS = frozenset(
    {
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSumSquare",
    }
)
# Pad got further modes and an input for axes, at its end: what we write stays as it is.
_UNKNOWN = frozenset({"Split", "Resize", "BitShift", "GridSample"})


def raise_opset(model: onnx.ModelProto) -> None:
    """Rewrite a graph of opset 17 to 19, in place.

    Raises:
        ValueError: an operator of it changed in a way that is not handled here.
    """
    present = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in _UNKNOWN:
            raise ValueError(f"{node.name}: {node.op_type} differs between opset 17 and 19")
        if node.op_type not in _REDUCTIONS:
            continue
        for attribute in [a for a in node.attribute if a.name == "axes"]:
            axes = list(attribute.ints)
            name = f"ints/{'_'.join(map(str, axes))}"
            if name not in present:
                value = numpy_helper.from_array(np.asarray(axes, dtype=np.int64), name)
                model.graph.initializer.append(value)
                present.add(name)
            node.input.append(name)
            node.attribute.remove(attribute)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", QDQ_OPSET))
    model.ir_version = QDQ_IR_VERSION
