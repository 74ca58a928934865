"""A graph in a file, written and read: external data where protobuf's 2 GB do not do.

Protobuf serializes a message as one piece of memory, and takes a multiple of it on the way: 1.3 GB
for a ViT-B's 350 MB. So the constants are written one by one, and protobuf sees what is around them;
those of a graph that is being exported are not in memory at all (`ConstantsFile`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import onnx
from onnx import helper

from vptkit.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vptkit.formats.bundle import Bundle

    from .constants_file import ConstantsFile

__all__ = ["read_model", "write_model"]

_PROTOBUF_LIMIT = 2**31 - (1 << 24)  # with room for the nodes


def write_model(model: onnx.ModelProto, path: Path, constants: ConstantsFile | None = None) -> None:
    """Write a graph (with external data beyond protobuf's 2 GB).

    Args:
        model: the graph; beyond 2 GB it is changed, and names its external data afterwards.
        path: where.
        constants: those of its constants that are not in it; beyond 2 GB their file becomes the
            graph's external data.

    Raises:
        OSError: the disk is full.
    """
    data = path.with_name(f"{path.name}.data")
    if _size(model) < _PROTOBUF_LIMIT:
        with path.open("wb") as stream:
            stream.writelines(_pieces(model, constants))
    elif constants is None:
        onnx.save_model(model, str(path), save_as_external_data=True, location=data.name)
    else:
        constants.refer(model, data)
        path.write_bytes(model.SerializeToString(deterministic=True))


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


def _pieces(
    model: onnx.ModelProto, constants: ConstantsFile | None
) -> Iterator[bytes | memoryview]:
    """What `model.SerializeToString(deterministic=True)` gives, a constant a piece.

    Each piece is valid until the next is asked for (`ConstantsFile.pieces`).
    """
    graph, heads, tails = model.graph, list[bytes](), list[bytes]()
    length = 0
    for tensor in graph.initializer:
        before, after = _around(tensor, "raw_data")
        raw = len(tensor.raw_data)
        if constants is not None and constants.holds(tensor):
            raw = constants.length(tensor.name)
        if raw or tensor.HasField("raw_data"):
            before += _begin(tensor, "raw_data", raw)
        size = len(before) + raw + len(after)
        heads.append(_begin(graph, "initializer", size) + before)
        tails.append(after)
        length += len(heads[-1]) + raw + len(after)
    before, after = _around(graph, "initializer")
    first, last = _around(model, "graph")
    yield first + _begin(model, "graph", len(before) + length + len(after)) + before
    for head, tensor, tail in zip(heads, graph.initializer, tails, strict=True):
        yield head
        if constants is not None and constants.holds(tensor):
            yield from constants.pieces(tensor.name)
        else:
            yield tensor.raw_data
        yield tail
    yield after + last


def _around(message: Any, name: str) -> tuple[bytes, bytes]:
    """The fields of smaller and of larger numbers than one field, serialized."""
    middle = message.DESCRIPTOR.fields_by_name[name].number
    parts = type(message)(), type(message)()
    for field, value in message.ListFields():
        if field.number == middle:
            continue
        part = parts[field.number > middle]
        if hasattr(value, "extend"):  # repeated; what a descriptor says of it changed over time
            getattr(part, field.name).extend(value)
        elif hasattr(value, "CopyFrom"):
            getattr(part, field.name).CopyFrom(value)
        else:
            setattr(part, field.name, value)
    before, after = (part.SerializeToString(deterministic=True) for part in parts)
    return before, after


def _begin(message: Any, name: str, length: int) -> bytes:
    """What stands before the bytes of one field: its number, wire type 2, and a length."""
    found = bytearray()
    for number in (message.DESCRIPTOR.fields_by_name[name].number << 3 | 2, length):
        rest = number
        while rest >= 1 << 7:
            found.append(rest & 0x7F | 0x80)
            rest >>= 7
        found.append(rest)
    return bytes(found)


def _size(model: onnx.ModelProto) -> int:
    """Bytes of the constants (protobuf's own ByteSize would serialize the model to tell)."""
    return sum(
        math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in model.graph.initializer
    )
