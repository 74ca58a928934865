"""int8 and fp8: errors of the expected size, types, islands, products of integers."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
from onnx import TensorProto

from tests.support.exported_graphs import error, graph_of, run
from vptkit.export.analysis.dataflow import groups_of
from vptkit.export.analysis.qdq_placement import lint_placement
from vptkit.export.numerics.precision_simulation import simulated
from vptkit.export.precision.half_precision import typed
from vptkit.export.precision.pixel_centring import centre_pixels
from vptkit.export.precision.quantize import quantize, quantize_best


def test_int8_is_near_fp32_and_cleanly_placed(case, centred, evidence):
    low, plan = quantize(centred, "int8", (), evidence, high="fp32")
    onnx.checker.check_model(low, full_check=True)
    assert lint_placement(low) == []
    assert lint_placement(centred) == []
    assert low.opset_import[0].version == 17
    assert 1e-4 < error(run(low, case), run(centred, case)) < 0.1
    counts = {k: sum(n.op_type == k for n in low.graph.node) for k in ("QuantizeLinear", "MatMul")}
    assert counts["QuantizeLinear"] == plan["activations"] > 6
    heads = [n for n in low.graph.node if n.name.startswith("logits")]
    assert not any("/dq" in name for n in heads for name in n.input)


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_over_fp16_it_is_opset_19_and_typed(case, centred, evidence, precision):
    low, _ = quantize(centred, precision, (), evidence, high="fp16")
    low, _ = typed(low, "fp16")
    onnx.checker.check_model(low, full_check=True)
    assert lint_placement(low) == []
    assert (low.opset_import[0].version, low.ir_version) == (19, 9)
    scales = [t for t in low.graph.initializer if t.name.endswith("/scale")]
    assert {t.data_type for t in scales} == {TensorProto.FLOAT16}
    assert (
        error(run(simulated(low), case), run(centred, case)) < {"int8": 0.1, "fp8": 0.2}[precision]
    )


def test_islands_are_left_alone(centred, evidence):
    low, _ = quantize(centred, "int8", ("blocks.0", "patch"), evidence, high="fp32")
    groups = groups_of(centred)
    for node in low.graph.node:
        if groups.get(node.name, "").startswith(("blocks.0", "patch")):
            assert not any(name.endswith("/dq") for name in node.input), node.name


def test_onnx_runtime_makes_int8_products_of_all_linears(case, evidence, tmp_path):
    """Its own optimizer says so; the broken twin is the same graph with biases of one dimension."""
    import onnxruntime

    whole = graph_of(case, last_block="absorbed", qkv="fused", batch=4)
    centre_pixels(whole)
    low, plan = quantize(whole, "int8", (), evidence, high="fp32", smoothing=None)

    def products(model: onnx.ModelProto) -> int:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        nodes = onnx.load(str(tmp_path / "optimized.onnx")).graph.node
        return sum(node.op_type == "MatMulIntegerToFloat" for node in nodes)

    assert products(low) == plan["weights"]
    for tensor in low.graph.initializer:
        if list(tensor.dims[:2]) == [1, 1] and tensor.name.endswith(".bias"):
            del tensor.dims[:2]
    twin = products(low)
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 21):
        pytest.skip("ONNX Runtime before 1.21 fuses biases of one dimension too")
    assert twin < plan["weights"] / 2


def test_the_best_treatment_is_what_it_gives_alone_and_every_image_is_counted(centred, evidence):
    told, totals = [], []

    class Bar:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def update(self, count=1):
            told.append(count)

    def phase(_, total):
        totals.append(total)
        return Bar()

    low, plan = quantize_best(centred, "int8", (), replace(evidence, phase=phase), high="fp32")
    assert [sum(told)] == totals
    behind = tuple(plan["behind_activations"])
    alone, _ = quantize(centred, "int8", (), evidence, high="fp32", behind=behind)
    assert low.SerializeToString(deterministic=True) == alone.SerializeToString(deterministic=True)
