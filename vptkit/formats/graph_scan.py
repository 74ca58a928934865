"""What an ONNX file makes its reader open besides itself, found without the onnx package.

A graph may keep constants in other files, of any path (`TensorProto.external_data`), and may hold a
compiled engine, or the path of one (an `EPContext` node). Readers of a graph follow both; older ONNX
Runtimes follow them out of the folder.

Protobuf's wire format is a sequence of fields, each a key (number and kind) and a value; a message
within a message is a value with a length. So large constants are stepped over, not read: a few
thousand small reads for a whole ViT. What the walk does not understand is refused.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from vptkit.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import BinaryIO

__all__ = ["require_closed_graph"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_BLOCK = 1 << 13
_DEPTH = 64  # of messages within each other; protobuf itself ends at 100
_SMALL = 1 << 12  # bytes of a value that is searched as a whole before it is taken apart
# Message → field number → the message in it; of the fields that may hold a node or a tensor.
# The numbers are those of onnx.proto3, and never change.
_INSIDE: Mapping[str, Mapping[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        22: "Sparse",
        23: "Sparse",
    },
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
_OPERATOR = ("Node", 4)
_LOCATION = ("Tensor", 14)  # 1: not in this file
_ENGINE = b"EPContext"
_PATH = b"location"  # the key of the entry that names a tensor's file


class _Field(NamedTuple):
    number: int
    kind: int
    start: int  # of the value
    end: int
    value: int  # of a varint


class _File:
    """Parts of a file, read through a window."""

    def __init__(self, stream: BinaryIO, source: object) -> None:
        self._handle, self.source = stream.fileno(), source
        self.size = os.fstat(self._handle).st_size
        self._start, self._block = 0, b""

    def part(self, start: int, size: int) -> bytes:
        """Bytes; fewer at the end of the file."""
        offset = start - self._start
        if not 0 <= offset <= len(self._block) - size:
            self._start, offset = start, 0
            self._block = os.pread(self._handle, max(size, _BLOCK), start)
        return self._block[offset : offset + size]

    def broken(self) -> BundleError:
        return BundleError(f"{self.source}: not a readable ONNX graph. Export the bundle again.")


def require_closed_graph(stream: BinaryIO, source: object, data: str | None) -> None:
    """Refuse a graph that makes its readers open other files than the bundle's own.

    Args:
        stream: the ONNX file; read by position, so its own position stays.
        source: its name, for messages.
        data: the name of the file of constants that the bundle lists, or None.

    Raises:
        BundleError: constants lie in another file, there is a compiled engine in it, or it is no
            ONNX graph.
    """
    file = _File(stream, source)
    _walk(file, "Model", 0, file.size, data, _DEPTH)


def _walk(file: _File, message: str, start: int, end: int, data: str | None, depth: int) -> None:
    if depth == 0:
        raise file.broken()
    outside: list[bytes] = []  # the entries of a tensor that lies elsewhere
    for field in _fields(file, start, end):
        place = (message, field.number)
        inner = _INSIDE[message].get(field.number)
        if place == _LOCATION and field.kind == _VARINT and field.value:
            outside.append(b"")
        elif field.kind != _BYTES:
            continue
        elif place == _OPERATOR:
            if file.part(field.start, min(field.end - field.start, 10)) == _ENGINE:
                raise BundleError(
                    f"{file.source}: holds an engine that was compiled elsewhere (an EPContext "
                    "node), which is machine code. Export the bundle again."
                )
        elif inner == "Entry":
            outside.append(_location(file, field))
        elif inner is not None and not _harmless(file, field):
            _walk(file, inner, field.start, field.end, data, depth - 1)
    if outside and (data is None or set(outside) - {b"", data.encode()}):
        names = b", ".join(sorted(set(outside) - {b""})).decode("utf-8", "replace")
        raise BundleError(
            f"{file.source}: keeps constants in {names[:200]!r}, which is no file of the bundle. "
            "Export the bundle again."
        )


def _harmless(file: _File, field: _Field) -> bool:
    """Whether a small message holds none of the words without which it can do no harm."""
    size = field.end - field.start
    if size > _SMALL:
        return False
    content = file.part(field.start, size)
    return _ENGINE not in content and _PATH not in content


def _location(file: _File, entry: _Field) -> bytes:
    """The file that an entry of a tensor names; b"" if the entry says something else."""
    texts = {1: b"", 2: b""}
    for field in _fields(file, entry.start, entry.end):
        if field.kind == _BYTES and field.number in texts:
            texts[field.number] = file.part(field.start, min(field.end - field.start, _SMALL))
    return texts[2] if texts[1] == _PATH else b""


def _fields(file: _File, start: int, end: int) -> Iterator[_Field]:
    """The fields of a message, in order.

    Raises:
        BundleError: they do not fill it exactly, or are of a kind that ONNX does not have.
    """
    while start < end:
        key, start = _varint(file, start, 5)
        number, kind, value = key >> 3, key & 7, 0
        if kind == _VARINT:
            value, after = _varint(file, start, 10)
        elif kind == _BYTES:
            size, start = _varint(file, start, 5)
            after = start + size
        elif kind in (_FIXED32, _FIXED64):
            after = start + (4 if kind == _FIXED32 else 8)
        else:
            raise file.broken()
        if number == 0 or after > end:
            raise file.broken()
        yield _Field(number, kind, start, after, value)
        start = after


def _varint(file: _File, start: int, most: int) -> tuple[int, int]:
    """A number of up to `most` bytes, and where it ends."""
    value = 0
    for i, byte in enumerate(file.part(start, most)):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, start + i + 1
    raise file.broken()
