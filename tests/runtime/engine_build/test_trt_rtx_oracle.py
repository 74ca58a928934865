"""TensorRT-RTX asked in child processes."""

from __future__ import annotations

import importlib.util

import onnx
import pytest
from onnx import TensorProto

from tests.support.one_op import TABLE, One, graph_of
from vptkit.errors import MissingExtraError, VptkitError
from vptkit.runtime.engine_build import trt_rtx_oracle
from vptkit.runtime.engine_build.trt_rtx_oracle import ask_oracle

rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="TensorRT-RTX is missing"
)


@pytest.fixture
def graph(tmp_path):
    def write(one: One):
        onnx.save(graph_of(one), tmp_path / "one.onnx")
        return tmp_path / "one.onnx"

    return write


@rtx
def test_an_engine(graph):
    opinions = ask_oracle(graph(TABLE["LayerNormalization"]), [86, 120])
    assert [o.sm for o in opinions] == [86, 120]
    for opinion in opinions:
        document = opinion.to_json(layers=True)
        assert document["ok"]
        assert document["structure"]["layers"] == len(document["layer_list"]) > 0
        assert document["plan_bytes"] > document["weights_bytes"] > 0
        nodes = [node for layer in document["layer_list"] for node in layer["nodes"]]
        assert "LayerNormalization_0" in nodes


@rtx
def test_a_parser_error_names_the_node(graph):
    (opinion,) = ask_oracle(graph(TABLE["Det"]), [86])
    assert (opinion.ok, opinion.stage) == (False, "parse")
    assert opinion.errors[0]["node"] == "Det_0"


@rtx
def test_a_crash_is_a_finding(graph):
    one = One(make=lambda m: m.op("Attention", *[m.heads()] * 3), opset=23)
    (opinion,) = ask_oracle(graph(one), [86])
    assert (opinion.ok, opinion.stage) == (False, "crash")
    assert "SIG" in opinion.errors[0]["message"]
    assert opinion.errors[0]["node"] is not None


@rtx
def test_a_build_that_takes_too_long_is_a_finding(graph):
    (opinion,) = ask_oracle(graph(TABLE["HardSwish"]), [86], timeout_s=0.01)
    assert opinion.stage == "timeout"


@rtx
def test_a_target_that_does_not_exist(graph):
    (opinion,) = ask_oracle(graph(TABLE["HardSwish"]), [87])
    assert opinion.stage == "target"
    assert "SM86" in opinion.errors[0]["message"]


@rtx
def test_bfloat16_on_turing_fails_in_the_build(graph):
    one = One(make=TABLE["Erf, bfloat16"].make, kind=TensorProto.BFLOAT16)
    (opinion,) = ask_oracle(graph(one), [75])
    assert (opinion.ok, opinion.stage) == (False, "build")
    assert opinion.errors


def test_missing_wheels(graph, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"vptkit\[trt-rtx\]"):
        ask_oracle(graph(TABLE["HardSwish"]))


@rtx
def test_a_missing_file(tmp_path):
    with pytest.raises(VptkitError, match="no such file"):
        ask_oracle(tmp_path / "none.onnx")


@pytest.mark.parametrize(("free", "workers"), [(None, 1), (0, 1), (2**40, 2)])
def test_builds_share_the_memory(graph, monkeypatch, free, workers):
    monkeypatch.setattr(trt_rtx_oracle, "free_memory", lambda: free)
    monkeypatch.setattr(trt_rtx_oracle.os, "sched_getaffinity", lambda pid: range(2))
    assert trt_rtx_oracle._workers(graph(TABLE["HardSwish"]), 3) == workers
