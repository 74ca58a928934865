"""Tensor files (safetensors), read and written with numpy alone.

Reading is done here, not by safetensors: from one opened descriptor, header and numbers at once, so
that what was checked is what is read; and bfloat16, which numpy lacks, costs no second reading.
Where a file is too large to be held (`stored_tensors`), each reading asks the descriptor whether it
is still the same file. It is not mapped: the memory of a mapped file that is cut ends the process.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from vptkit.atomic_files import atomic_file
from vptkit.backbones.stored_tensor import StoredTensor
from vptkit.regular_files import open_regular, stamp_of
from vptkit.strict_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from vptkit.errors import VptkitError
    from vptkit.regular_files import Stamp

__all__ = [
    "parse_tensor_file",
    "read_metadata",
    "read_opened_tensors",
    "read_tensor_file",
    "read_tensors",
    "require_unchanged",
    "stored_tensors",
    "write_tensors",
]

_MOST_HEADER = 100_000_000  # bytes, as in safetensors
_MOST_DIMENSIONS = 16
_TYPES = {
    "BF16": "<u2",  # its bits; what is returned is float32
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "u1",
}
Content = tuple[dict[str, str], dict[str, "NDArray[Any]"]]


class _Entry(NamedTuple):
    """A tensor of the header."""

    kind: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_tensors(path: Path, error: type[VptkitError]) -> dict[str, NDArray[Any]]:
    """All tensors of a safetensors file; bfloat16, which numpy lacks, becomes float32.

    Raises:
        error: the file is missing, no regular file, truncated, or not a safetensors file; a tensor
            has a type that is not one of BF16, F16 … F64, I8 … I64, U8, BOOL.
    """
    return read_tensor_file(path, error)[1]


def read_tensor_file(path: Path, error: type[VptkitError], *, limit: int | None = None) -> Content:
    """Metadata and tensors of a safetensors file, both of one reading.

    Args:
        path: the file.
        error: what to raise.
        limit: the most bytes that such a file has.

    Raises:
        error: see `read_tensors`; or the file is larger.
    """
    with _opened(path, error, limit) as stream:
        return read_opened_tensors(stream, path, error)


def read_opened_tensors(stream: BinaryIO, path: Path, error: type[VptkitError]) -> Content:
    """The same of a file that is open already, from its begin.

    Args:
        stream: of a regular file, at its first byte.
        path: its name, for messages.
        error: what to raise.

    Raises:
        error: see `read_tensors`.
    """
    return _content(stream, os.fstat(stream.fileno()).st_size, path, error)


def parse_tensor_file(content: bytes, source: Path, error: type[VptkitError]) -> Content:
    """The same of a file that was read.

    Raises:
        error: see `read_tensors`.
    """
    return _content(io.BytesIO(content), len(content), source, error)


def _content(stream: BinaryIO, size: int, path: Path, error: type[VptkitError]) -> Content:
    metadata, entries = _header(stream, size, path, error)
    tensors = {}
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        tensors[name] = _tensor(stream.readinto, entry, path, error)  # type: ignore[attr-defined]
    return metadata, tensors


def stored_tensors(
    stream: BinaryIO, path: Path, error: type[VptkitError]
) -> dict[str, StoredTensor]:
    """The tensors of a file that is open and stays open: each is read when it is asked for.

    Args:
        stream: of a regular file, at its first byte.
        path: its name, for messages.
        error: what to raise, also by a tensor that is read: the file was changed since.

    Raises:
        error: see `read_tensors`.
    """
    stamp = stamp_of(stream)
    _, entries = _header(stream, stamp.size, path, error)
    begin = stream.tell()

    def read(entry: _Entry) -> NDArray[Any]:
        try:
            value = _tensor(partial(_filled, stream, begin + entry.begin), entry, path, error)
        except OSError as cause:
            raise error(f"{path}: cannot be read: {cause.strerror}") from cause
        require_unchanged(stream, stamp, path, error)
        return value

    return {name: StoredTensor(e.shape, partial(read, e)) for name, e in entries.items()}


def require_unchanged(stream: BinaryIO, stamp: Stamp, path: Path, error: type[VptkitError]) -> None:
    """Refuse a file that is no more what it was.

    Args:
        stream: of the open file.
        stamp: of `stamp_of`, when it was checked.
        path: its name, for the message.
        error: what to raise.

    Raises:
        error: it was changed.
    """
    if stamp_of(stream) != stamp:
        raise error(f"{path}: was changed while it was read. Start again once it is whole.")


def _filled(stream: BinaryIO, offset: int, place: memoryview) -> int:
    """Read from an offset until a piece of memory is full, or the file ends; how many bytes."""
    done = 0
    while done < len(place):
        count = os.preadv(stream.fileno(), [place[done:]], offset + done)
        if not count:
            break
        done += count
    return done


def read_metadata(path: Path, error: type[VptkitError]) -> dict[str, str]:
    """The string-to-string metadata of a safetensors file; empty if it has none.

    Raises:
        error: see `read_tensors`.
    """
    with _opened(path, error) as stream:
        return _header(stream, os.fstat(stream.fileno()).st_size, path, error)[0]


def write_tensors(
    path: Path, tensors: Mapping[str, NDArray[Any]], metadata: tuple[str, str] | None = None
) -> None:
    """Write a safetensors file atomically, the same bytes for the same content.

    Args:
        path: where; an existing file is replaced.
        tensors: by name.
        metadata: at most one key and its text: with several keys safetensors' own header order
            changes from run to run.

    Raises:
        OutputError: the disk is full or not writable.
    """
    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    with atomic_file(path) as part:
        try:
            save_file(contiguous, part, metadata=dict([metadata]) if metadata else None)
        except SafetensorError as cause:  # safetensors wraps the operating system's error
            raise OSError(_errno_of(cause), str(cause)) from cause


@contextlib.contextmanager
def _opened(path: Path, error: type[VptkitError], limit: int | None = None) -> Iterator[BinaryIO]:
    path = Path(path)  # programs also call with a text
    if path.is_dir():
        raise error(f"{path}: a folder, expected a .safetensors file")
    with open_regular(path, error, limit=limit) as stream:
        try:
            yield stream
        except OSError as cause:
            raise error(f"{path}: cannot be read: {cause.strerror}") from cause


def _header(
    stream: BinaryIO, size: int, path: Path, error: type[VptkitError]
) -> tuple[dict[str, str], dict[str, _Entry]]:
    """Metadata and entries; these fill what is behind the header, without a gap or an overlap."""
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or not 2 <= length <= min(size - 8, _MOST_HEADER):
        raise _damaged(path, f"a header of {length} bytes", error)
    text = stream.read(length)
    if len(text) != length or text[:1] != b"{":
        raise _damaged(path, "no header", error)
    document = parse_json(text, f"{path}: not a readable safetensors file: the header", error)
    metadata = document.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _damaged(path, "metadata that is no text by name", error)
    entries = {name: _entry(name, value, path, error) for name, value in document.items()}
    end = 0
    for entry in sorted(entries.values(), key=lambda e: (e.begin, e.end)):
        if entry.begin != end:
            raise _damaged(path, "tensors with gaps or overlaps", error)
        end = entry.end
    if end != size - 8 - length:
        raise _damaged(path, f"{size - 8 - length} bytes of tensors, expected {end}", error)
    return metadata, entries


def _entry(name: str, value: Any, path: Path, error: type[VptkitError]) -> _Entry:
    fits = isinstance(value, dict) and set(value) == {"dtype", "shape", "data_offsets"}
    if not fits or not isinstance(value["dtype"], str):
        raise _damaged(path, f"tensor {name!r} without type, shape and place", error)
    kind, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if kind not in _TYPES:
        raise error(
            f"{path}: tensor {name} has the type {kind[:20]}, expected one of {' '.join(_TYPES)}"
        )
    for numbers, most in ((shape, _MOST_DIMENSIONS), (offsets, 2)):
        whole = isinstance(numbers, list) and len(numbers) <= most
        if not whole or any(type(n) is not int or not 0 <= n < 2**62 for n in numbers):
            raise _damaged(path, f"tensor {name!r} of an odd shape or place", error)
    if len(offsets) != 2:
        raise _damaged(path, f"tensor {name!r} without a place", error)
    begin, end = offsets
    if end - begin != math.prod(shape) * np.dtype(_TYPES[kind]).itemsize:
        raise _damaged(path, f"tensor {name!r} is {shape}, but has {end - begin} bytes", error)
    return _Entry(kind, tuple(shape), begin, end)


def _tensor(
    fill: Callable[[memoryview], int], entry: _Entry, path: Path, error: type[VptkitError]
) -> NDArray[Any]:
    """A tensor whose bytes `fill` gives."""
    try:
        value: NDArray[Any] = np.empty(entry.shape, dtype=_TYPES[entry.kind])
    except (ValueError, MemoryError) as cause:  # dimensions beyond any, or a hole of terabytes
        raise _damaged(path, f"a tensor of the shape {entry.shape}", error) from cause
    if value.size:
        place = memoryview(value.reshape(-1)).cast("B")  # type: ignore[arg-type]  # it is one
        if fill(place) != value.nbytes:
            raise _damaged(path, "it became shorter while it was read", error)
    if entry.kind == "BF16":
        return np.asarray((value.astype(np.uint32) << 16).view(np.float32))
    return value != 0 if entry.kind == "BOOL" else value


def _damaged(path: Path, why: str, error: type[VptkitError]) -> VptkitError:
    return error(f"{path}: not a readable safetensors file ({why}); it may be truncated or damaged")


def _errno_of(cause: SafetensorError) -> int:
    found = re.search(r"(?:os error|code:) (\d+)", str(cause))  # newer safetensors; 0.4
    return int(found.group(1)) if found else errno.EIO
