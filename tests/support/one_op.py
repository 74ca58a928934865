"""Hand-made graphs of one operator each, and whether TensorRT takes them (`TABLE`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TABLE", "One", "graph_of"]

X = (1, 40, 64)


@dataclass(frozen=True, kw_only=True)
class One:
    """A graph x → y.

    Attributes:
        make: from a `_Maker` to the name of the result.
        refused: by TensorRT-RTX 1.7, which reads graphs as TensorRT 11 does.
        opset, kind: of the graph.
    """

    make: Callable[[Any], str]
    refused: bool = False
    opset: int = 17
    kind: int = T.FLOAT16


class _Maker:
    def __init__(self, kind: int) -> None:
        self.kind, self.nodes, self.tensors = kind, [], []

    def op(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        name = f"{operator}_{len(self.nodes)}"
        names = [f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, name=name, **attributes))
        return names[0] if outputs == 1 else names

    def const(self, value: Any, dtype: Any = None) -> str:
        dtype = dtype or helper.tensor_dtype_to_np_dtype(self.kind)
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(value).astype(dtype), name))
        return name

    def scale(self) -> tuple[str, str]:
        return self.const(np.ones(64)), self.const(np.zeros(64))

    def heads(self) -> str:
        split = self.op("Reshape", "x", self.const((1, 40, 2, 32), np.int64))
        return self.op("Transpose", split, perm=(0, 2, 1, 3))

    def quantized(self, dtype: Any, zero: int = 0) -> str:
        scale, point = self.const(0.05), self.const(zero, dtype)
        y = self.op("QuantizeLinear", "x", scale, point)
        return self.op("DequantizeLinear", y, scale, point)


def graph_of(one: One) -> onnx.ModelProto:
    maker = _Maker(one.kind)
    y = maker.op("Identity", one.make(maker))
    graph = helper.make_graph(
        maker.nodes,
        "one",
        [helper.make_tensor_value_info("x", one.kind, X)],
        [helper.make_tensor_value_info(y, one.kind, None)],
        maker.tensors,
    )
    opsets = [helper.make_opsetid("", one.opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _integer(m: _Maker) -> str:
    q, scale, zero = m.op("DynamicQuantizeLinear", "x", outputs=3)
    y = m.op("MatMulInteger", q, m.const(np.ones((64, 64)), np.uint8), zero)
    return m.op("Mul", m.op("Cast", y, to=T.FLOAT), scale)


def _int32_bias(m: _Maker) -> str:
    bias = m.op("DequantizeLinear", m.const(np.ones(64), np.int32), m.const(0.05))
    return m.op("Add", "x", bias)


def _uint8_weight(m: _Maker) -> str:
    w = m.const(np.ones((64, 64)), np.uint8)
    w = m.op("DequantizeLinear", w, m.const(0.05), m.const(0, np.uint8))
    return m.op("MatMul", m.quantized(np.uint8), w)


def _qlinear(m: _Maker) -> str:
    s, z = m.const(0.1), m.const(0, np.int8)
    q = m.op("QuantizeLinear", "x", s, z)
    w = m.const(np.ones((64, 64)), np.int8)
    return m.op("DequantizeLinear", m.op("QLinearMatMul", q, s, z, w, s, z, s, z), s, z)


def _per_channel(m: _Maker) -> str:
    w = m.const(np.ones((64, 64)), np.int8)
    w = m.op("DequantizeLinear", w, m.const(np.ones(64)), m.const(np.zeros(64), np.int8), axis=1)
    return m.op("MatMul", m.quantized(np.int8), w)


def _attention(m: _Maker) -> str:
    parts = [m.op("Mul", m.heads(), m.const(c)) for c in (0.5, 0.6, 0.7)]
    return m.op("Attention", *parts)


TABLE = {
    "LayerNormalization": One(make=lambda m: m.op("LayerNormalization", "x", *m.scale())),
    "Softmax, float32": One(make=lambda m: m.op("Softmax", "x", axis=-1), kind=T.FLOAT),
    "Erf, bfloat16": One(make=lambda m: m.op("Erf", "x"), kind=T.BFLOAT16),
    "Gelu": One(make=lambda m: m.op("Gelu", "x"), opset=20),
    "RMSNormalization": One(make=lambda m: m.op("RMSNormalization", "x", m.scale()[0]), opset=23),
    "HardSwish": One(make=lambda m: m.op("HardSwish", "x")),
    "Attention": One(make=_attention, opset=23),
    "Attention, float32": One(make=_attention, opset=23, kind=T.FLOAT, refused=True),
    "int8 per channel": One(make=_per_channel, kind=T.FLOAT),
    "uint8 weight": One(make=_uint8_weight, kind=T.FLOAT, refused=True),
    "uint8 activation": One(make=lambda m: m.quantized(np.uint8), kind=T.FLOAT),
    "zero point 3": One(make=lambda m: m.quantized(np.int8, 3), kind=T.FLOAT, refused=True),
    "int32 bias": One(make=_int32_bias, kind=T.FLOAT, refused=True),
    "MatMulInteger": One(make=_integer, kind=T.FLOAT, refused=True),
    "QLinearMatMul": One(make=_qlinear, kind=T.FLOAT, refused=True),
    "SkipLayerNormalization": One(
        make=lambda m: m.op("SkipLayerNormalization", "x", "x", *m.scale(), domain="com.microsoft"),
        refused=True,
    ),
    "Det": One(make=lambda m: m.op("Det", "x"), kind=T.FLOAT, refused=True),
}
