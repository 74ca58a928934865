"""Reading a build log and the engine inspector's JSON: no TensorRT needed."""

from __future__ import annotations

import json

import pytest

from vptkit.runtime.engine_build.engine_layers import (
    bytes_of,
    last_node,
    messages,
    structure,
    structure_of_engine,
)


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
    assert bytes_of("INFO: Total Activation Memory: 22118400", "Activation") == 22118400  # 8.6
    assert messages(log, "ERROR") == ["broken"]
    assert last_node("") is None


def inspected(*layers):
    text = json.dumps({"Layers": list(layers)}).replace("\\u001e", "\x1e")
    return structure_of_engine(text, "\n".join(GRAPH))


TEN = {  # TensorRT 10: "Format/Datatype"
    "Name": "_gemm_mha_v2_myl0_7",
    "LayerType": "kgen",
    "Inputs": [{"Name": "q", "Dimensions": [1, 3], "Format/Datatype": "Half"}],
    "Outputs": [{"Name": "r", "Dimensions": [1, 3], "Format/Datatype": "Half"}],
    "TacticName": "_gemm_mha_v2_0x1",
    "StreamId": 0,
    "Metadata": "[ONNX Layer: blocks.0.attn/scores]\x1e[ONNX Layer: blocks.0.attn/softmax]",
}
ELEVEN = {  # TensorRT 11: apart
    "Name": "fc_myl0_1",
    "LayerType": "gemm",
    "Inputs": [{"Name": "x", "Format": "Row major linear format", "DataType": "Int8"}],
    "Constants": [
        {"Name": "w", "Dimensions": [4, 4], "DataType": "Int8"},
        {"Name": "alpha", "Dimensions": [1], "DataType": "Float"},
    ],
    "Outputs": [{"Name": "y", "Format": "Row major linear format", "DataType": "Half"}],
    "Metadata": "[ONNX Layer: fc][ONNX Layer: dq_x]",
}
OLD = {  # outside TensorRT's own compiler
    "Name": "patch",
    "LayerType": "CaskConvolution",
    "Inputs": [
        {"Name": "x", "Format/Datatype": "Channel major FP16 format where channel % 4 == 0"}
    ],
    "Outputs": [{"Name": "y", "Format/Datatype": "Row major linear FP32"}],
    "Weights": {"Type": "Half", "Count": 9408},
    "Metadata": "",
}


def test_the_inspector_of_tensorrt_10_and_11():
    found = inspected(TEN, ELEVEN, OLD)
    mha, fc, patch = found.layers
    assert (mha.role, mha.type, mha.inputs, mha.outputs) == (
        "attention",
        "Half",
        ("Half",),
        ("Half",),
    )
    assert mha.nodes == ("blocks.0.attn/scores", "blocks.0.attn/softmax")
    assert (fc.role, fc.type, fc.constants) == ("gemm", "Int8", ("Int8",))
    assert (patch.role, patch.type, patch.outputs) == ("conv", "Half", ("Float",))
    assert found.unfused == ()
    assert found.dequantized == ()
    assert found.to_json()["roles"] == {
        "attention": {"Half": 1},
        "conv": {"Half": 1},
        "gemm": {"Int8": 1},
    }


def test_the_inspector_shows_what_is_not_fused():
    softmax = TEN | {"Name": "__myl_MaxrSubExpSumDivMul_myl0_7"}
    higher = ELEVEN | {"Name": "__myl_CastMulFc_myl0_2", "Constants": []}
    found = inspected(softmax, higher)
    assert found.unfused == ("blocks.0.attn/softmax",)
    assert found.dequantized == ("fc",)


@pytest.mark.parametrize(
    ("text", "type_"),
    [
        ("Half", "Half"),
        ("Row major linear FP16 format", "Half"),
        ("Row major linear BF16", "BFloat16"),
        ("BFloat16", "BFloat16"),
        ("FP8", "FP8"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "Int8"),
        ("Row major linear UInt8 format", "UInt8"),
        ("Row major linear INT32 format", "Row major linear INT32 format"),
    ],
)
def test_spellings_of_types(text, type_):
    layer = TEN | {"Inputs": [{"Format/Datatype": text}]}
    assert inspected(layer).layers[0].inputs == (type_,)


def test_layers_that_hide_what_is_in_them():
    hidden = TEN | {"Name": "{ForeignNode[images/float...logits]}", "LayerType": "Myelin"}
    assert inspected(hidden).opaque == ("{ForeignNode[images/float...logits]}",)
    assert inspected(TEN).opaque == ()
    assert inspected("only a name").layers[0].type == "-"


def test_factors_of_one_number_are_no_weights():
    factors = tensor("Float").replace("[1,4]", "[1]")
    text = line("head", "gemm", ["Half", "Half"], [], "n").replace(
        "Constants: [ ]", f"Constants: [ {factors}, {factors}]"
    )
    (layer,) = structure(text).layers
    assert (layer.constants, layer.type) == ((), "Half")
