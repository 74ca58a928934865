"""What keeps an attention from being fused: types, widths, rows; and what is no attention."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from vptkit.export.analysis.attention_fusion import fusion_obstacles
from vptkit.export.analysis.dataflow import Dataflow


def attention(width=64, rows=10, kind=TensorProto.FLOAT16, *, keys="computed", int8=False):
    """Softmax over a scaled and masked product of queries [1, rows, width] and keys."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    constants = {
        "scale": np.asarray(0.125, dtype),
        "mask": np.zeros((1, rows), dtype),
        "weight": np.zeros((width, rows), dtype),
        "step": np.asarray(0.1, dtype),
        "zero": np.int8(0),
    }
    nodes = [
        helper.make_node("Neg", ["x"], ["q0"], name="q"),
        helper.make_node("Transpose", ["x"], ["k"], name="k", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "k" if keys == "computed" else "weight"], ["s"], name="s"),
        helper.make_node("Mul", ["s", "scale"], ["scaled"], name="scaled"),
        helper.make_node("Add", ["scaled", "mask"], ["masked"], name="masked"),
        helper.make_node("Softmax", ["masked"], ["y"], name="softmax", axis=-1),
    ]
    if int8:
        nodes[1:1] = [
            helper.make_node("QuantizeLinear", ["q0", "step", "zero"], ["q8"], name="q/q"),
            helper.make_node("DequantizeLinear", ["q8", "step", "zero"], ["q"], name="q/dq"),
        ]
    else:
        nodes[1:1] = [helper.make_node("Identity", ["q0"], ["q"], name="same")]
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("x", kind, [1, rows, width])],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def reasons(**changes):
    found = list(fusion_obstacles(Dataflow.of(attention(**changes))))
    assert {node.name for node, _ in found} <= {"softmax"}
    return [reason for _, reason in found]


@pytest.mark.parametrize("width", [16, 64, 256])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_what_is_fused_has_no_obstacle(width, kind):
    assert reasons(width=width, kind=kind) == []


@pytest.mark.parametrize("width", [8, 20, 264])
def test_odd_widths(width):
    (reason,) = reasons(width=width)
    assert reason == f"heads are {width} wide: fused are widths from 16 to 256 in steps of 8"


def test_float32_is_not_fused():
    (reason,) = reasons(kind=TensorProto.FLOAT)
    assert "attention in float32 is not fused" in reason


def test_int8_has_bounds_of_its_own():
    wide, long = reasons(width=128, rows=513, int8=True)
    assert wide == "int8 heads are 128 wide: fused are 16, 32, 64"
    assert long == "int8 attention over 513 rows: fused are at most 512"
    assert reasons(width=64, rows=512, int8=True) == []
    assert reasons(width=128, rows=513) == []  # fp16 may


def test_a_softmax_over_a_linear_is_no_attention():
    assert reasons(width=20, kind=TensorProto.FLOAT, keys="weight") == []
