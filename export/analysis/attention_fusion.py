"""The attentions of a graph, and what keeps TensorRT from fusing one into a single kernel.

TensorRT's conditions: operands of the products in fp16, bf16, int8 or fp8; head width 16 to 256 in
steps of 8; int8: head width 16, 32 or 64 and at most 512 rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from .dataflow import Dataflow

__all__ = ["fusion_obstacles"]

# What may stand between the product of queries and keys and the softmax
_BETWEEN = frozenset({"Cast", "Mul", "Div", "Add", "Sub", "Where"})
_INT8_WIDTHS = (16, 32, 64)
_INT8_ROWS = 512


def fusion_obstacles(flow: Dataflow) -> Iterator[tuple[onnx.NodeProto, str]]:
    """(softmax node, reason) for each attention that TensorRT will not fuse."""
    for node in flow.model.graph.node:
        if node.op_type == "Softmax":
            scores = _scores(node.input[0], flow)
            if scores is not None:
                yield from ((node, reason) for reason in _reasons(node, scores, flow))


def _scores(value: str, flow: Dataflow) -> onnx.NodeProto | None:
    """The product of two computed values behind the input of a softmax."""
    if value not in flow.makers:
        return None
    node = flow.makers[value]
    if node.op_type == "MatMul":
        return node if flow.weight_of(node) is None else None
    if node.op_type not in _BETWEEN:
        return None
    found = (_scores(name, flow) for name in node.input if name not in flow.constants)
    return next((scores for scores in found if scores is not None), None)


def _reasons(softmax: onnx.NodeProto, scores: onnx.NodeProto, flow: Dataflow) -> Iterator[str]:
    queries = scores.input[0]
    if flow.types.get(queries) == TensorProto.FLOAT:
        yield "attention in float32 is not fused: fp16, bf16, int8 and fp8 are"
    width = (flow.shapes.get(queries) or (None,))[-1]
    if width is None:
        return
    if width % 8 or not 16 <= width <= 256:
        yield f"heads are {width} wide: fused are widths from 16 to 256 in steps of 8"
    rows = [n for n in flow.shapes.get(softmax.input[0], ())[-2:] if n is not None]
    if _is_int8(queries, flow):
        if width not in _INT8_WIDTHS:
            yield f"int8 heads are {width} wide: fused are {', '.join(map(str, _INT8_WIDTHS))}"
        if rows and max(rows) > _INT8_ROWS:
            yield f"int8 attention over {max(rows)} rows: fused are at most {_INT8_ROWS}"


def _is_int8(value: str, flow: Dataflow) -> bool:
    node = flow.origin(value)
    return (
        node is not None
        and node.op_type == "DequantizeLinear"
        and flow.types.get(node.input[0]) == TensorProto.INT8
    )
