"""What an operator has to do, from its shapes: floating-point operations of its products, and bytes.

A multiply-accumulate is two operations. Of sums, norms and the like only the bytes count: they wait for
the memory on every processor. The bytes are those of each input and output once, which is what a perfect
cache would leave.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Cost", "Tensor", "cost_of"]

_PRODUCTS = ("MatMul", "Gemm", "Conv")  # also FusedMatMul, MatMulInteger, QLinearMatMul, …
_ATTENTIONS = ("MultiHeadAttention", "Attention", "QAttention")
_VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Identity", "Shape", "Flatten")
_SIZES = {"float": 4, "float16": 2, "bfloat16": 2, "double": 8, "bool": 1}
_SIZES |= {f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)}


class Tensor(NamedTuple):
    """Type, as ONNX Runtime writes it ("float", "int8"), and shape."""

    type: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size in memory."""
        return prod(self.shape) * _SIZES.get(self.type, 4)


class Cost(NamedTuple):
    """Of one call.

    Attributes:
        flops: floating-point (or integer) operations of products; 0 where there are none.
        bytes: read and written.
    """

    flops: int
    bytes: int


def cost_of(operator: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Cost:
    """What one call costs.

    Args:
        operator: of ONNX or of ONNX Runtime.
        inputs: what it reads; a weight may be missing, as a packed one does in ONNX Runtime's profile.
        outputs: what it writes.
    """
    if operator in _VIEWS:
        return Cost(0, 0)
    moved = sum(tensor.bytes for tensor in (*inputs, *outputs))
    if not outputs or not inputs:
        return Cost(0, moved)
    if operator in _ATTENTIONS:
        return Cost(_attention(inputs), moved)
    if not any(word in operator for word in _PRODUCTS):
        return Cost(0, moved)
    inner = _inner(operator, inputs, outputs[0])
    large = [tensor for tensor in inputs if len(tensor.shape) >= 2]
    if len(large) < 2:  # the packed weight
        columns = outputs[0].shape[1 if "Conv" in operator else -1]
        kind = inputs[0].type if "int" in inputs[0].type else outputs[0].type
        moved += Tensor(kind, (inner, columns)).bytes
    return Cost(2 * prod(outputs[0].shape) * inner, moved)


def _inner(operator: str, inputs: Sequence[Tensor], output: Tensor) -> int:
    """How many products each number of the output sums."""
    first = inputs[0].shape
    if "Conv" in operator:
        weight = next((t.shape for t in inputs[1:] if len(t.shape) > 2), None)
        return prod(weight[1:]) if weight else prod(first[1:]) // max(prod(output.shape[2:]), 1)
    if not first or not output.shape:
        return 1
    if len(first) == 1 or len(output.shape) < 2:
        return first[-1]
    # one of its last two dimensions is that of the output's rows; the first may be transposed
    return first[-1] if first[-2] == output.shape[-2] else first[-2]


def _attention(inputs: Sequence[Tensor]) -> int:
    """Scores and mix of fused attention: query [B, T, D], key [B, S, D] or as heads [B, H, S, d]."""
    query = inputs[0].shape
    key = inputs[1].shape if len(inputs) > 1 else query
    return 4 * prod(query) * key[-2]
