"""A graph, written to a file: external data where protobuf's 2 GB do not do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx
from onnx import helper

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_model"]

_PROTOBUF_LIMIT = 2**31 - (1 << 24)  # with room for the nodes


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph (with external data beyond protobuf's 2 GB)."""
    if _size(model) < _PROTOBUF_LIMIT:
        path.write_bytes(model.SerializeToString(deterministic=True))
    else:
        onnx.save_model(model, str(path), save_as_external_data=True, location=f"{path.name}.data")


def _size(model: onnx.ModelProto) -> int:
    """Bytes of the constants (protobuf's own ByteSize would serialize the model to tell)."""
    return sum(
        math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in model.graph.initializer
    )
