"""Typed graphs: every type checks, islands and sums stay in fp32, and rounding is what it says."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.strategies import Setup, build
from vptkit.export.analysis.dataflow import Dataflow, groups_of
from vptkit.export.fold.fold_network import fold
from vptkit.export.graph.folded_graph import folded_graph
from vptkit.export.graph.graph_options import GraphOptions
from vptkit.export.graph.unfolded_graph import unfolded_graph
from vptkit.export.numerics.precision_simulation import needs_simulation, simulated
from vptkit.export.precision.half_precision import cast_array, typed
from vptkit.export.precision.pixel_centring import centre_pixels


def graph_of(case, **options):
    adapter = case.adapter
    return folded_graph(
        case.spec,
        fold(case.spec, case.weights, adapter),
        adapter.insert,
        adapter.pool,
        adapter.norm,
        GraphOptions(**options),
    )


def run(model, case):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {"images": case.images}
    if session.get_inputs()[0].name == "pixels":
        feed = {"pixels": case.pixels.astype(np.float32)}
    return session.run(["logits"], feed)[0]


def error(found, expected):
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.fixture(scope="module")
def case():
    return build(Setup())


@pytest.fixture(scope="module")
def model(case):
    return graph_of(case, last_block="query")


# Pixels --------------------------------------------------------------------------------------------


def test_centred_pixels_change_nothing(case, model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    assert centre_pixels(copy)
    assert error(run(copy, case), run(model, case)) < 2e-6
    flow = Dataflow.of(copy)
    (product,) = [n for n in copy.graph.node if n.name == "patch/MatMul"]
    before = np.abs(numpy_helper.to_array(Dataflow.of(model).constants[product.input[1]])).max()
    assert np.abs(flow.array(product.input[1])).max() == pytest.approx(128 * before)


def test_normalised_pixels_are_left_alone(case):
    assert not centre_pixels(graph_of(case, input="float32"))
    assert not centre_pixels(unfolded_graph(case.spec, case.weights, case.adapter, GraphOptions()))


# Types ---------------------------------------------------------------------------------------------


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


def test_the_simulation_differs_from_fp32_by_the_type_s_rounding(case, model):
    """Its broken twin, a simulation without rounding, would equal fp32."""
    exact = run(model, case)
    fp16 = error(run(simulated(typed(model, "fp16")[0]), case), exact)
    bf16 = error(run(simulated(typed(model, "bf16")[0]), case), exact)
    assert 3 < bf16 / fp16 < 30  # three bits less


def test_a_value_beyond_fp16_shows_in_the_simulation(case, model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name == "blocks.0.mlp.fc2.bias":
            value = numpy_helper.to_array(tensor) + np.float32(60000)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        if tensor.name == "blocks.0.attn.proj.bias":
            value = numpy_helper.to_array(tensor) + np.float32(60000)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    assert np.isfinite(run(copy, case)).all()
    assert not np.isfinite(run(simulated(typed(copy, "fp16")[0]), case)).all()
    islands = tuple(sorted(set(groups_of(copy).values())))
    assert np.isfinite(run(simulated(typed(copy, "fp16", islands)[0]), case)).all()


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
