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
from typing import TYPE_CHECKING

from vptkit.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import BinaryIO

__all__ = ["require_closed_graph"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_BLOCK = 1 << 13
_DEPTH = 64  # of messages within each other; protobuf itself ends at 100
_SMALL = 1 << 12  # bytes of a value that is searched as a whole before it is taken apart
_STRETCH = 1 << 20  # bytes of small values that are searched at once, at most
_HEAD = 16  # bytes of a key, and of the number behind it, at most
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
    "Entry": {},
}
_OPERATOR = ("Node", 4)
_LOCATION = ("Tensor", 14)  # 1: not in this file
_ENGINE = b"EPContext"
_PATH = b"location"  # the key of the entry that names a tensor's file


class _File:
    """Parts of a file, read through a window."""

    def __init__(self, stream: BinaryIO, source: object) -> None:
        self._handle, self.source = stream.fileno(), source
        self.size = os.fstat(self._handle).st_size
        self._start, self._block = 0, b""

    def part(self, start: int, size: int) -> bytes:
        """Bytes; fewer at the end of the file."""
        offset = start - self._start
        found = self._block[offset : offset + size] if offset >= 0 else b""
        if len(found) < size:
            self._start, self._block = start, os.pread(self._handle, max(size, _BLOCK), start)
            found = self._block[:size]
        return found

    def holds_no_word(self, start: int, end: int) -> bool:
        """Whether a stretch has none of the words without which a graph can do no harm."""
        content = self.part(start, end - start) if start < end else b""
        return _ENGINE not in content and _PATH not in content

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
    if not _harmless(file, "Model", 0, file.size, _DEPTH):
        _inspect(file, "Model", 0, file.size, data, _DEPTH)


def _harmless(file: _File, message: str, start: int, end: int, depth: int) -> bool:
    """Whether a message holds none of the words, large values aside that are only numbers.

    One search for many small fields, instead of a look at each: the word is nearly never there.
    """
    if depth == 0:
        raise file.broken()
    inside, begun = _INSIDE[message], start
    for number, kind, first, after, _ in _fields(file, start, end):
        large = kind == _BYTES and after - first > _SMALL
        if not large and after - begun <= _STRETCH:
            continue
        inner = inside.get(number) if large else None
        if not file.holds_no_word(begun, first if large else after) or (
            inner is not None and not _harmless(file, inner, first, after, depth - 1)
        ):
            return False
        begun = after
    return file.holds_no_word(begun, end)


def _inspect(file: _File, message: str, start: int, end: int, data: str | None, depth: int) -> None:
    """Look at every field of a message that has one of the words."""
    if depth == 0:
        raise file.broken()
    outside: list[bytes] = []  # the files that a tensor names, b"" for a mark without a name
    for number, kind, first, after, value in _fields(file, start, end):
        inner = _INSIDE[message].get(number)
        if (message, number) == _LOCATION and kind == _VARINT and value:
            outside.append(b"")
        elif kind != _BYTES:
            continue
        elif (message, number) == _OPERATOR:
            _require_no_engine(file, first, after)
        elif inner == "Entry":
            outside.append(_location(file, first, after))
        elif inner is not None and not (
            after - first <= _SMALL and file.holds_no_word(first, after)
        ):
            _inspect(file, inner, first, after, data, depth - 1)
    if outside and (data is None or set(outside) - {b"", data.encode()}):
        names = b", ".join(sorted(set(outside) - {b""})).decode("utf-8", "replace")
        raise BundleError(
            f"{file.source}: keeps constants in {names[:200]!r}, which is no file of the bundle. "
            "Export the bundle again."
        )


def _require_no_engine(file: _File, start: int, end: int) -> None:
    if file.part(start, min(end - start, len(_ENGINE) + 1)) == _ENGINE:
        raise BundleError(
            f"{file.source}: holds an engine that was compiled elsewhere (an EPContext node), which "
            "is machine code. Export the bundle again."
        )


def _location(file: _File, start: int, end: int) -> bytes:
    """The file that an entry of a tensor names; b"" if the entry says something else."""
    texts = {1: b"", 2: b""}
    for number, kind, first, after, _ in _fields(file, start, end):
        if kind == _BYTES and number in texts:
            texts[number] = file.part(first, min(after - first, _SMALL))
    return texts[2] if texts[1] == _PATH else b""


def _fields(file: _File, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """The fields of a message: number, kind, start and end of the value, a varint's number.

    Raises:
        BundleError: they do not fill the message exactly, or are of a kind that ONNX does not have.
    """
    while start < end:
        head = file.part(start, _HEAD)
        key, at = head[0] if head else 0x80, 1  # nearly always one byte
        if key >= 0x80:
            key, at = _varint(file, head, 0, 5)
        number, kind, value = key >> 3, key & 7, 0
        if kind == _BYTES:
            size = head[at] if at < len(head) else 0x80
            at += 1
            if size >= 0x80:
                size, at = _varint(file, head, at - 1, 5)
            first = start + at
            after = first + size
        elif kind == _VARINT:
            first = start + at
            value, at = _varint(file, head, at, 10)
            after = start + at
        elif kind in (_FIXED32, _FIXED64):
            first = start + at
            after = first + (4 if kind == _FIXED32 else 8)
        else:
            raise file.broken()
        if number == 0 or after > end:
            raise file.broken()
        yield number, kind, first, after, value
        start = after


def _varint(file: _File, head: bytes, at: int, most: int) -> tuple[int, int]:
    """A number of up to `most` bytes, and where it ends."""
    value = shift = 0
    for byte in head[at : at + most]:
        at += 1
        if byte < 0x80:
            return value | byte << shift, at
        value |= (byte & 0x7F) << shift
        shift += 7
    raise file.broken()
