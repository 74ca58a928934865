"""A graph's constants in a file while the graph is written, so that memory holds one at a time.

A folded ViT has as many numbers as its weights. They stand in the order in which they were folded,
each at the begin of a page: that is how ONNX wants a file of external data, so beyond protobuf's
2 GB the file is kept as it is; else it is copied into the graph's, and goes.
"""

from __future__ import annotations

import contextlib
import os
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

__all__ = ["ConstantsFile", "constants_file"]

_LEAST = 1 << 10  # bytes; what is smaller stays in the graph, as onnx itself does it
_PAGE = 1 << 12  # readers map constants that begin at a page's begin
_TILE = 1 << 6  # columns
_PIECE = 1 << 20  # bytes that are cast and written at once: they stay in the processor's cache


class _Place(NamedTuple):
    """Where a constant's bytes are."""

    offset: int
    length: int


class ConstantsFile:
    """Constants by name, in an open file."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        """Begin with none.

        Args:
            stream: of an empty file, to be read and written.
            path: its name.
        """
        self._stream, self._path = stream, path
        self._places: dict[str, _Place] = {}
        self._end = 0

    def takes(self, value: NDArray[Any], dtype: np.dtype[Any]) -> bool:
        """Whether a constant is to stand here: numbers of a network, of more than a few bytes.

        Args:
            value: the constant; of integers a graph's shapes may depend, so these stay in it.
            dtype: as which it is written.
        """
        return value.dtype.kind == "f" and value.size * dtype.itemsize >= _LEAST

    def add(self, name: str, value: NDArray[Any], dtype: np.dtype[Any]) -> None:
        """Write one constant, row by row; what is cast at a time is small.

        Raises:
            OSError: the disk is full.
        """
        begin = -(-self._end // _PAGE) * _PAGE
        self._stream.write(bytes(begin - self._end))
        rows = value.reshape(1) if value.ndim == 0 else value
        step = max(1, _PIECE * len(rows) // (rows.size * dtype.itemsize))
        piece = np.empty((min(step, len(rows)), *rows.shape[1:]), dtype.newbyteorder("<"))
        for first in range(0, len(rows), step):
            some = rows[first : first + step]
            part = piece[: len(some)]
            _cast(some, part)
            self._stream.write(part.data)
        length = rows.size * dtype.itemsize
        self._places[name] = _Place(begin, length)
        self._end = begin + length

    def holds(self, tensor: onnx.TensorProto) -> bool:
        """Whether the numbers of a graph's constant stand here, and not in the graph."""
        return tensor.name in self._places and not tensor.HasField("raw_data")

    def length(self, name: str) -> int:
        """Bytes of a constant."""
        return self._places[name].length

    def pieces(self, name: str) -> Iterator[memoryview]:
        """The bytes of a constant, some at a time; each piece is valid until the next is asked for."""
        self._stream.flush()
        offset, left = self._places[name]
        buffer = memoryview(bytearray(min(left, _PIECE)))
        while left:
            count = os.preadv(self._stream.fileno(), [buffer[: min(left, _PIECE)]], offset)
            if not count:
                raise OSError(f"{self._path}: became shorter while it was used")
            yield buffer[:count]
            offset, left = offset + count, left - count

    def whole(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of a graph that has its constants in itself, for who computes with them."""
        copy = deepcopy(model)
        for tensor in copy.graph.initializer:
            if self.holds(tensor):
                tensor.raw_data = b"".join(map(bytes, self.pieces(tensor.name)))
        return copy

    def refer(self, model: onnx.ModelProto, path: Path) -> None:
        """Have a graph name this file, which gets another name in the same file system.

        Args:
            model: changed; small beyond its constants here.
            path: the file's new name, in the folder where the graph will be.
        """
        self._stream.flush()
        self._path.rename(path)
        self._path = path
        for tensor in model.graph.initializer:
            if not self.holds(tensor):
                continue
            place = self._places[tensor.name]
            tensor.data_location = onnx.TensorProto.EXTERNAL
            entries = {"location": path.name, **place._asdict()}
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=str(value))


def _cast(value: NDArray[Any], into: NDArray[Any]) -> None:
    """Cast rows into others of the same shape, which stand one behind the other.

    NumPy goes along the rows that it writes. Of a transposed matrix, as folds give them, each number
    of a row is in another cache line, so a wide one is cast in tiles: in a fifth of the time.
    """
    width = _TILE if value.ndim == 2 and not value.flags.c_contiguous else into.shape[-1]
    for first in range(0, into.shape[-1], width):
        columns = np.s_[..., first : first + width]
        np.copyto(into[columns], value[columns], casting="same_kind")


@contextlib.contextmanager
def constants_file(path: Path) -> Iterator[ConstantsFile]:
    """Yield a place for constants, which goes afterwards unless a graph refers to it.

    Args:
        path: of a file that is not there yet.

    Raises:
        OSError: the file cannot be made.
    """
    with path.open("x+b") as stream:
        try:
            yield ConstantsFile(stream, path)
        finally:
            path.unlink(missing_ok=True)
