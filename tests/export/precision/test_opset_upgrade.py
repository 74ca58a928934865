"""From opset 17 to 19: the same answers, or a refusal."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from vptkit.export.precision.opset_upgrade import QDQ_IR_VERSION, QDQ_OPSET, raise_opset

X = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)


def graph(*nodes):
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answer(model):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": X})[0]


@pytest.mark.parametrize("operator", ["ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp"])
def test_reductions_answer_as_before(operator):
    """Two over the same axes share one constant; one that keeps its dimensions, one that does not."""
    model = graph(
        helper.make_node(operator, ["x"], ["kept"], name="kept", axes=[2], keepdims=1),
        helper.make_node("Sub", ["x", "kept"], ["centred"], name="centred"),
        helper.make_node(operator, ["centred"], ["row"], name="row", axes=[2], keepdims=0),
        helper.make_node(operator, ["row"], ["y"], name="y", axes=[0, 1], keepdims=0),
    )
    before = answer(model)
    raise_opset(model)
    onnx.checker.check_model(model, full_check=True)
    assert (model.opset_import[0].version, model.ir_version) == (QDQ_OPSET, QDQ_IR_VERSION)
    assert [tensor.name for tensor in model.graph.initializer] == ["ints/2", "ints/0_1"]
    np.testing.assert_array_equal(answer(model), before)


def test_what_changed_in_another_way_is_refused():
    model = graph(helper.make_node("Split", ["x"], ["y", "z"], name="halves", axis=2))
    with pytest.raises(ValueError, match="halves: Split differs between opset 17 and 19"):
        raise_opset(model)
    assert model.opset_import[0].version == 17
