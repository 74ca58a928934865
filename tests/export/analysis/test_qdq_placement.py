"""Each fault of Q/DQ placement is found: one broken twin a fault."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from vptkit.export.analysis.qdq_placement import lint_placement
from vptkit.export.graph.unfolded_graph import unfolded_graph
from vptkit.export.precision.quantize import quantize


def broken(model, change):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    change(copy)
    return lint_placement(copy)


def test_lint_finds_each_fault(case, centred, evidence):  # noqa: C901 - one broken twin a fault
    low = quantize(centred, "int8", (), evidence, high="fp32")[0]

    def asymmetric(copy):
        for t in copy.graph.initializer:
            if t.name == "quantized/zero":
                t.CopyFrom(numpy_helper.from_array(np.int8(3), t.name))

    def unsigned(copy):
        for t in copy.graph.initializer:
            if t.name == "quantized/zero":
                t.CopyFrom(numpy_helper.from_array(np.uint8(0), t.name))
        for n in copy.graph.node:
            if n.op_type == "QuantizeLinear":
                del n.input[2:]

    def half(copy):
        node = next(n for n in copy.graph.node if n.op_type == "MatMul" and "/dq" in n.input[0])
        maker = {n.output[0]: n for n in copy.graph.node}
        node.input[0] = maker[maker[node.input[0]].input[0]].input[0]

    def output(copy):
        node = next(n for n in copy.graph.node if n.op_type == "Softmax")
        source = next(n for n in copy.graph.node if n.op_type == "DequantizeLinear")
        copy.graph.node.extend(
            [
                helper.make_node("QuantizeLinear", [node.output[0], *source.input[1:]], ["o/q"]),
                helper.make_node("DequantizeLinear", ["o/q", *source.input[1:]], ["o/dq"]),
                helper.make_node("Neg", ["o/dq"], ["o/n"], name="o/n"),
            ]
        )

    assert any("asymmetric" in f for f in broken(low, asymmetric))
    assert any("uint8 by default" in f for f in broken(low, unsigned))
    assert any("only its weight is quantized" in f for f in broken(low, half))
    assert any("breaks fused attention" in f for f in broken(low, output))
    fused = unfolded_graph(case.spec, case.weights, case.adapter, graph_options())
    low, _ = quantize(fused, "int8", (), evidence, high="fp32")
    assert sum("queries, keys and values" in f for f in lint_placement(low)) == case.spec.depth


def graph_options():
    from vptkit.export.graph.graph_options import GraphOptions

    return GraphOptions()
