"""A graph in a file, written and read: external data where protobuf's 2 GB do not do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx
from onnx import helper

from vptkit.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

    from vptkit.formats.bundle import Bundle

__all__ = ["read_model", "write_model"]

_PROTOBUF_LIMIT = 2**31 - (1 << 24)  # with room for the nodes


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph (with external data beyond protobuf's 2 GB)."""
    if _size(model) < _PROTOBUF_LIMIT:
        path.write_bytes(model.SerializeToString(deterministic=True))
    else:
        onnx.save_model(model, str(path), save_as_external_data=True, location=f"{path.name}.data")


def read_model(bundle: Bundle) -> onnx.ModelProto:
    """A bundle's graph, all of its constants in memory.

    Raises:
        BundleError: it is not the one that the manifest lists, or no ONNX graph.
    """
    with bundle.graph() as path:
        try:
            return onnx.load(path)
        except Exception as error:  # protobuf's and onnx's share no other base
            raise BundleError(f"{bundle.model}: not a readable ONNX graph ({error})") from error


def _size(model: onnx.ModelProto) -> int:
    """Bytes of the constants (protobuf's own ByteSize would serialize the model to tell)."""
    return sum(
        math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in model.graph.initializer
    )
