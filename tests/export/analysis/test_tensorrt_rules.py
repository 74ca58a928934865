"""The rules, held against TensorRT-RTX where it is installed."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.one_op import TABLE, One, graph_of
from vptkit.errors import VptkitError
from vptkit.export.analysis.tensorrt_rules import VERSIONS, check_rules
from vptkit.runtime.engine_build.trt_rtx_oracle import ask_oracle


def errors(model: onnx.ModelProto, version: str = "11.4") -> list[str]:
    (verdict,) = check_rules(model, [version])
    return [finding.message for finding in verdict.findings if finding.level == "error"]


def warnings(model: onnx.ModelProto, version: str = "11.4") -> list[str]:
    (verdict,) = check_rules(model, [version])
    return [finding.message for finding in verdict.findings if finding.level == "warning"]


@pytest.mark.parametrize("name", TABLE)
def test_the_table_by_rules(name):
    assert bool(errors(graph_of(TABLE[name]))) == TABLE[name].refused


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="TensorRT-RTX is missing"
)
@pytest.mark.parametrize("name", TABLE)
def test_the_table_by_tensorrt(name, tmp_path):
    onnx.save(graph_of(TABLE[name]), tmp_path / "one.onnx")
    (opinion,) = ask_oracle(tmp_path / "one.onnx", [86])
    assert opinion.ok == (not TABLE[name].refused), opinion.errors


@pytest.mark.parametrize(
    ("name", "refusing"),
    [
        ("LayerNormalization", set()),
        ("Gelu", {"8.6"}),
        ("Erf, bfloat16", {"8.6"}),
        ("RMSNormalization", {"8.6", "10.0", "10.3", "10.13"}),
        ("Det", set(VERSIONS)),
        ("uint8 activation", set(VERSIONS) - {"11.4"}),
    ],
)
def test_versions_differ(name, refusing):
    model = graph_of(TABLE[name])
    assert {v.version for v in check_rules(model) if not v.ok} == refusing


def test_findings_name_the_node():
    (verdict,) = check_rules(graph_of(TABLE["Det"]), ["10.3"])
    (finding,) = (f for f in verdict.findings if f.level == "error")
    assert (finding.node, finding.operator) == ("Det_0", "Det")
    assert verdict.to_json()["findings"][0]["message"] == "operator Det: not in TensorRT 10.3"


def test_8_needs_builder_flags():
    assert any("FP16" in text for text in warnings(graph_of(TABLE["HardSwish"]), "8.6"))
    assert not any("flags" in text for text in warnings(graph_of(TABLE["HardSwish"]), "10.3"))


def attention(*, width: int = 64, kind: int = TensorProto.FLOAT16, cast: bool = False):
    def make(m):
        q = m.op("Reshape", "x", m.const((1, 40 * 64 // width, 1, width), np.int64))
        q = m.op("Transpose", q, perm=(0, 2, 1, 3))
        s = m.op("MatMul", q, m.op("Transpose", q, perm=(0, 1, 3, 2)))
        if cast:
            s = m.op("Cast", m.op("Mul", s, m.const(0.5)), to=TensorProto.FLOAT)
        p = m.op("Softmax", s, axis=-1)
        if cast:
            p = m.op("Cast", p, to=kind)
        return m.op("MatMul", p, q)

    return graph_of(One(make=make, kind=kind))


def test_attention_that_is_fused_draws_no_warning():
    assert warnings(attention()) == []
    assert warnings(attention(cast=True)) == []


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"kind": TensorProto.FLOAT}, "float32"),
        ({"width": 20}, "20 wide"),
        ({"width": 8}, "8 wide"),
    ],
)
def test_what_keeps_attention_from_being_fused(options, word):
    assert any(word in text for text in warnings(attention(**options)))


def bytes_graph(operator: str) -> onnx.ModelProto:
    """uint8 x → float32 y, cut before the Cast or not."""
    first = helper.make_node("Cast", ["x"], ["y"], name="cast", to=TensorProto.FLOAT)
    tensors = [numpy_helper.from_array(np.array([n]), f"i{n}") for n in (0, 1, 2)]
    nodes = [first]
    if operator == "Slice":
        cut = helper.make_node("Slice", ["x", "i0", "i2", "i1"], ["z"], name="cut")
        first.input[0] = "z"
        nodes = [cut, first]
    graph = helper.make_graph(
        nodes,
        "bytes",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("operator", "fine"), [("Cast", True), ("Slice", False)])
def test_uint8_is_for_cast_alone(operator, fine):
    for version in VERSIONS:
        assert (errors(bytes_graph(operator), version) == []) == fine


def test_an_unknown_version_is_refused():
    with pytest.raises(VptkitError, match=r"'7\.2'"):
        check_rules(graph_of(TABLE["Gelu"]), ["7.2"])
