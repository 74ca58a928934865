"""Reading a build log: no TensorRT needed."""

from __future__ import annotations

import pytest

from vptkit.runtime.layers import bytes_of, last_node, messages, structure


def tensor(kind: str) -> str:
    return f"{{ Name: t, Dimensions: [1,4], Strides: [4,1], StrideOrder: [1,0], Datatype: {kind} }}"


def line(name: str, kind: str, inputs: list[str], constants: list[str], *nodes: str) -> str:
    ins, consts = (", ".join(map(tensor, kinds)) for kinds in (inputs, constants))
    metadata = "".join(f"[ONNX Layer: {node}]" for node in nodes)
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {ins}], Constants: [ {consts}], "
        f"Outputs: [ {tensor('Half')}], TacticName: x, StreamId: 0, Metadata: {metadata}"
    )


def parsed(node: str, operator: str, inputs: str, output: str) -> str:
    values = ", ".join(f"[{name} -> (1, 4)[HALF]]" for name in inputs.split())
    return (
        f"VERBOSE: Parsing node: {node} [{operator}]\n"
        f"VERBOSE: {node} [{operator}] inputs: {values}, \n"
        f"VERBOSE: {node} [{operator}] outputs: [{output} -> (1, 4)[HALF]], "
    )


GRAPH = [
    parsed("dq_x", "DequantizeLinear", "x s z", "dx"),
    parsed("dq_w", "DequantizeLinear", "w s z", "dw"),
    parsed("fc", "MatMul", "dx dw", "h"),
    parsed("blocks.0.attn/softmax", "Softmax", "h", "p"),
]
MHA = line("_gemm_mha_v2_myl0_7", "kgen", ["Half"] * 3, [], "blocks.0.attn/softmax")
ALONE = line("__myl_MaxrSubExpSumDivMul_myl0_7", "kgen", ["Half"], [], "blocks.0.attn/softmax")
INT8 = line("fc_myl0_1", "gemm", ["Int8"], ["Int8", "Float", "Float"], "fc", "dq_x", "dq_w")
HALF = line("__myl_CastMulFc_myl0_2", "runtime_fusion", ["Int8", "Half"], [], "fc", "dq_x")
AFTER = line("__myl_MulAdd_myl0_3", "kgen", ["Half"], ["Half"], "fc", "dq_x")


@pytest.mark.parametrize(("layer", "unfused"), [(MHA, ()), (ALONE, ("blocks.0.attn/softmax",))])
def test_attention(layer, unfused):
    found = structure("\n".join([*GRAPH, "VERBOSE: Layers:", layer]))
    assert found.unfused == unfused
    assert len(found.fused) == 1 - len(unfused)


@pytest.mark.parametrize(("layer", "dequantized"), [(INT8, ()), (HALF, ("fc",)), (AFTER, ("fc",))])
def test_a_quantized_linear(layer, dequantized):
    found = structure("\n".join([*GRAPH, "VERBOSE: Layers:", layer, AFTER]))
    assert found.quantized == ("fc",)
    assert found.dequantized == dequantized


@pytest.mark.parametrize(
    ("name", "kind", "role"),
    [
        ("_gemm_mha_v2_myl0_7", "kgen", "attention"),
        ("__myl_FcAddDivCastErfCastAddMulMul_myl0_10", "runtime_fusion", "gemm"),
        ("__myl_MulSumAdd_myl0_119", "kgen", "gemm"),
        ("__myl_CastMeanSubMulMeanAddSqrtDivMulCastMulAddMulMinMaxRounCast_myl0_0", "kgen", "norm"),
        ("__myl_MulAddMulMinMaxRounCastReshTranReshMove_myl0_2", "kgen", "other"),
        ("__myl_MaxrSubExpSumDivMul_myl0_7", "kgen", "softmax"),
        ("patch", "correlation", "conv"),
    ],
)
def test_roles(name, kind, role):
    (layer,) = structure(line(name, kind, ["Half"], ["Half"], "n")).layers
    assert layer.role == role
    assert layer.nodes == ("n",)


def test_the_type_of_a_layer():
    types = [structure(text).layers[0].type for text in (INT8, HALF, MHA, AFTER)]
    assert types == ["Int8", "Half", "Half", "Half"]


def test_the_rest_of_the_log():
    log = "\n".join([*GRAPH, "INFO: Total Weights Memory: 12 bytes", "ERROR: broken", "INFO: x"])
    assert last_node(log) == ("blocks.0.attn/softmax", "Softmax")
    assert (bytes_of(log, "Weights"), bytes_of(log, "Activation")) == (12, None)
    assert messages(log, "ERROR") == ["broken"]
    assert last_node("") is None
