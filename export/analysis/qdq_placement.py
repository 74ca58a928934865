"""Lint of Q/DQ placement: what TensorRT refuses, or silently computes in another type.

The rules are those measured with TensorRT-RTX (`tensorrt.md` 5.4 of the contract). A finding is a
sentence that names the node; an empty list is a clean graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, numpy_helper

from .dataflow import LAYOUT, LINEAR, Dataflow

if TYPE_CHECKING:
    import onnx

__all__ = ["lint_placement"]

_SMALL = frozenset({TensorProto.INT8, TensorProto.FLOAT8E4M3FN})


def lint_placement(model: onnx.ModelProto) -> list[str]:
    """Check a quantized graph.

    Returns:
        Findings, in the order of the nodes; none for a graph without Q/DQ.
    """
    flow = Dataflow.of(model)
    findings: list[str] = []
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            findings += _zero_point(flow, node)
        if node.op_type == "QuantizeLinear":
            findings += _place(flow, node)
        elif node.op_type == "DequantizeLinear":
            findings += _bias(flow, node)
        elif node.op_type in LINEAR:
            findings += _linear(flow, node)
    return findings


def _zero_point(flow: Dataflow, node: onnx.NodeProto) -> list[str]:
    """Signed and symmetric: the zero point is there (the default is uint8), small, and zero."""
    if len(node.input) < 3 or not node.input[2]:
        return [f"{node.name}: no zero point, so uint8 by default; expected int8 zeros"]
    tensor = flow.constants.get(node.input[2])
    if tensor is None:
        return [f"{node.name}: the zero point is computed; expected a constant"]
    if tensor.data_type not in _SMALL:
        kind = TensorProto.DataType.Name(tensor.data_type)
        return [f"{node.name}: the zero point is {kind}; expected INT8 or FLOAT8E4M3FN"]
    if numpy_helper.to_array(tensor).astype(np.float32).any():
        return [f"{node.name}: asymmetric, the zero point is not 0"]
    return []


def _place(flow: Dataflow, node: onnx.NodeProto) -> list[str]:
    """A QuantizeLinear stands on the input of a linear, never on the output of one."""
    findings = []
    for dequantized in flow.readers.get(node.output[0], []):
        if dequantized.op_type != "DequantizeLinear":
            findings.append(f"{node.name}: read by {dequantized.name}, expected DequantizeLinear")
            continue
        findings += [
            f"{node.name}: quantizes the input of {reader.name} ({reader.op_type}); quantizing "
            "outputs breaks fused attention"
            for reader in flow.readers.get(dequantized.output[0], [])
            if reader.op_type not in LINEAR
        ]
    return findings


def _bias(flow: Dataflow, node: onnx.NodeProto) -> list[str]:
    tensor = flow.constants.get(node.input[0])
    if tensor is None or tensor.data_type in _SMALL:
        return []
    kind = TensorProto.DataType.Name(tensor.data_type)
    return [f"{node.name}: dequantizes a constant of {kind} (a bias?); TensorRT refuses that"]


def _linear(flow: Dataflow, node: onnx.NodeProto) -> list[str]:
    """Both sides quantized or none; weights by output channel; no fused QKV by channel."""
    sides = [_dequantizer(flow, name) for name in node.input[:2]]
    quantized = [side is not None for side in sides]
    if any(quantized) and not all(quantized):
        which = "input" if quantized[0] else "weight"
        return [f"{node.name}: only its {which} is quantized, so it runs dequantized"]
    weight = sides[1]
    if weight is None or weight.input[0] not in flow.constants:
        return []
    scale = flow.shapes.get(weight.input[1], ())
    if not scale or scale == (1,):
        return []
    axis = next((a.i for a in weight.attribute if a.name == "axis"), 1)
    wanted = _output_axis(node)
    if axis % len(flow.shapes[weight.input[0]]) != wanted:
        return [f"{weight.name}: scales along axis {axis}, expected output channels ({wanted})"]
    if _is_fused_qkv(flow, node):
        sentence = (
            f"{node.name}: one linear makes queries, keys and values, with scales by channel,"
        )
        return [f"{sentence} so TensorRT runs it dequantized. Split it in three (--fold all)."]
    return []


def _dequantizer(flow: Dataflow, name: str) -> onnx.NodeProto | None:
    node = flow.makers.get(name)
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _output_axis(node: onnx.NodeProto) -> int:
    if node.op_type == "Conv":
        return 0
    return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1


def _is_fused_qkv(flow: Dataflow, node: onnx.NodeProto) -> bool:
    """Its outputs, three times as many as inputs, are picked apart by Gather, Slice or Split."""
    before, after = flow.shapes.get(node.input[0]), flow.shapes.get(node.output[0])
    if not before or not after or not before[-1] or after[-1] != 3 * before[-1]:
        return False
    waiting, parts = [node.output[0]], 0
    while waiting:
        for reader in flow.readers.get(waiting.pop(), []):
            if reader.op_type in ("Gather", "Slice"):
                parts += 1
            elif reader.op_type == "Split":
                return True
            elif reader.op_type == "Add" or reader.op_type in LAYOUT:
                waiting.append(reader.output[0])
    return parts >= 3
