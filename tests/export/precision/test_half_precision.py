"""Typed graphs: every type checks, islands and sums stay in fp32, and rounding is what it says."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.exported_graphs import error, graph_of, run
from tests.support.strategies import Setup, build
from vptkit.export.analysis.dataflow import Dataflow, groups_of
from vptkit.export.graph.graph_options import GraphOptions
from vptkit.export.graph.unfolded_graph import unfolded_graph
from vptkit.export.numerics.precision_simulation import needs_simulation, simulated
from vptkit.export.precision.half_precision import cast_array, typed
from vptkit.export.precision.pixel_centring import centre_pixels


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("form", ["absorbed", "query", "full", "unfolded", "float32"])
def test_every_form_is_typed_consistently(case, precision, form):
    if form == "unfolded":
        model = unfolded_graph(case.spec, case.weights, case.adapter, GraphOptions())
    elif form == "float32":
        model = graph_of(case, input="float32")
    else:
        model = graph_of(case, last_block=form)
        centre_pixels(model)
    low, report = typed(model, precision)
    onnx.checker.check_model(low, full_check=True)
    assert needs_simulation(low)
    assert not needs_simulation(model)
    assert report.low > 20
    assert (low.opset_import[0].version, low.ir_version) == (17, model.ir_version)
    assert [v.type.tensor_type.elem_type for v in low.graph.output] == [TensorProto.FLOAT]
    assert low.graph.input[0] == model.graph.input[0]
    bound = {"fp16": 5e-3, "bf16": 5e-2}[precision]
    assert 1e-6 < error(run(simulated(low), case), run(model, case)) < bound


def test_all_islands_are_fp32(case, model):
    low, report = typed(model, "fp16", ("patch", "blocks", "head"))
    assert report.low == report.casts == 0
    assert error(run(low, case), run(model, case)) == 0


def test_an_island_is_fp32_inside_and_cast_at_its_border(case, model):
    low, report = typed(model, "fp16", ("blocks.0.mlp",))
    groups, types = groups_of(model), Dataflow.of(low).types
    seen = {TensorProto.FLOAT: set(), TensorProto.FLOAT16: set()}
    for node in model.graph.node:
        kind = types.get(node.output[0])
        if kind in seen and not groups[node.name].startswith(("patch", "head")):
            seen[kind].add(groups[node.name])
    assert seen[TensorProto.FLOAT] == {"blocks.0.mlp"}
    assert {"blocks.0.attn", "blocks.0.residual", "blocks.1.mlp"} <= seen[TensorProto.FLOAT16]
    assert report.wide["island"] > 3
    assert report.casts >= 3  # in, out, logits


def test_means_and_root_mean_squares_stay_in_fp32():
    """x / sqrt(mean(x²)) of numbers whose squares fp16 cannot hold, then a mean over rows."""
    nodes = [
        helper.make_node("MatMul", ["pixels", "same"], ["rows"], name="patch"),
        helper.make_node("Mul", ["rows", "big"], ["x"], name="blocks.0/x"),
        helper.make_node("Mul", ["x", "x"], ["square"], name="blocks.0/square"),
        helper.make_node("ReduceMean", ["square"], ["mean"], name="blocks.0/mean", axes=[2]),
        helper.make_node("Add", ["mean", "eps"], ["safe"], name="blocks.0/safe"),
        helper.make_node("Sqrt", ["safe"], ["root"], name="blocks.0/root"),
        helper.make_node("Div", ["x", "root"], ["normal"], name="blocks.0/normal"),
        helper.make_node("Mul", ["normal", "gamma"], ["scaled"], name="blocks.0/scaled"),
        helper.make_node("ReduceMean", ["scaled"], ["logits"], name="pool", axes=[1], keepdims=0),
    ]
    constants = {"big": 400.0, "eps": 1e-6, "gamma": 2.0}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 5, 4])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])],
            [
                numpy_helper.from_array(np.eye(4, dtype=np.float32), "same"),
                *(numpy_helper.from_array(np.float32(v), k) for k, v in constants.items()),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    low, report = typed(model, "fp16")
    types = Dataflow.of(low).types
    for name in ("square", "mean", "safe", "root", "normal", "logits"):
        assert types[name] == TensorProto.FLOAT, name
    assert types["scaled"] == TensorProto.FLOAT16
    assert report.wide["sums"] == 6
    pixels = np.random.default_rng(0).normal(size=(1, 5, 4)).astype(np.float32)

    def logits(graph):
        session = onnxruntime.InferenceSession(graph.SerializeToString())
        return session.run(None, {"pixels": pixels})[0]

    assert error(logits(simulated(low)), logits(model)) < 2e-3


def test_bank_tables_take_the_low_type():
    nodes = [helper.make_node("MatMul", ["pixels", "bank.head"], ["logits"], name="logits")]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [
                helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 4]),
                helper.make_tensor_value_info("bank.head", TensorProto.FLOAT, [4, 2]),
            ],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    low, _ = typed(model, "fp16")
    onnx.checker.check_model(low, full_check=True)
    found = [v.type.tensor_type.elem_type for v in low.graph.input]
    assert found == [TensorProto.FLOAT, TensorProto.FLOAT16]


def test_constants_are_counted():
    value = np.float32([1.0, 0.0, 3e-5, 1e-9, -1e6, np.inf])
    low, counts = cast_array(value, TensorProto.FLOAT16)
    assert counts == {"constants": 6, "subnormal": 1, "zero": 1, "saturated": 1}
    assert low[4] == -65504
    assert np.isinf(low[5])


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_which_tokens_merge_is_decided_in_fp32(precision):
    """Similarities lie near one, where low types have few numbers; bfloat16 has no 257."""
    case = build(Setup(image=(32, 32), merge=3))
    model = graph_of(case, last_block="query", merging=case.adapter.merging)
    centre_pixels(model)
    low, report = typed(model, precision)
    onnx.checker.check_model(low, full_check=True)
    types = Dataflow.of(low).types
    chosen = [node for node in low.graph.node if node.op_type == "TopK"]
    assert len(chosen) == 6
    assert {types[node.input[0]] for node in chosen} == {TensorProto.FLOAT}
    assert types["blocks.1.merge/similar"] == TensorProto.FLOAT
    assert types["blocks.1.merge"] != TensorProto.FLOAT
    assert report.wide["choice"] > 6
    assert error(run(simulated(low), case), run(model, case)) < 0.1
