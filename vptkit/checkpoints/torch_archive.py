"""A file of `torch.save` as named arrays, without torch: its pickle in stand-ins, its numbers as bytes.

The file is a zip archive, `NAME/data.pkl` and one record `NAME/data/KEY` for each storage; before
torch 1.6 it was five pickles and, behind them, the storages one by one (`OldTorchFile`). A tensor
is a storage, an offset, a shape and strides; every one of these is the file's claim. So types come
from a list of names, records are read as far as the file goes, and NumPy itself refuses a shape
that does not lie inside the bytes that are there.
"""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections import Counter
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from .plain_pickle import Global, Made, Persistent, RefusedError, plain_pickle

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

__all__ = ["ALLOWED", "OldTorchFile", "TorchArchive", "is_tensor", "open_torch"]

_STORAGES = {  # torch's storage → NumPy's type of its numbers
    "torch.FloatStorage": "<f4",
    "torch.DoubleStorage": "<f8",
    "torch.HalfStorage": "<f2",
    "torch.BFloat16Storage": "<u2",  # its bits
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "u1",
}
_TENSORS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_PARAMETER = "torch._utils._rebuild_parameter"
_ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_ARRAY_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")
_NOT_READ = (  # what else tensors of torch consist of: known by name, and refused as numbers
    *("_rebuild_sparse_tensor", "_rebuild_meta_tensor_no_storage", "_rebuild_qtensor"),
    *("_rebuild_tensor_v3",),
)
_DTYPES = (
    *("float16", "float32", "float64", "bfloat16", "complex64", "complex128", "uint8", "int8"),
    *("int16", "int32", "int64", "bool", "uint16", "uint32", "uint64"),
    *("per_tensor_affine", "per_channel_affine", "Size", "device"),
    *("ComplexFloatStorage", "ComplexDoubleStorage", "QInt8Storage", "QUInt8Storage"),
    "QInt32Storage",
)
ALLOWED = frozenset(
    [
        *_STORAGES,
        *_TENSORS,
        *_ARRAYS,
        *(f"torch._utils.{name}" for name in _NOT_READ),
        *(f"torch.{name}" for name in _DTYPES),
        _PARAMETER,
        "torch.storage.UntypedStorage",
        "torch.serialization._get_layout",
        "numpy.ndarray",
        "numpy.dtype",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "_codecs.encode",
        "collections.OrderedDict",
        "collections.Counter",
        "collections.defaultdict",
        # the settings of a training beside its tensors: never built, and nobody asks for them
        "argparse.Namespace",
        "pathlib.Path",
        "pathlib.PosixPath",
        "pathlib.PurePosixPath",
        "pathlib.WindowsPath",
        "pathlib.PureWindowsPath",
        "pathlib._local.PosixPath",
        "pathlib._local.WindowsPath",
        "copy_reg._reconstructor",
        "copyreg._reconstructor",
        "__builtin__.object",
        "builtins.object",
        "__builtin__.dict",
        "builtins.dict",
        "__builtin__.list",
        "builtins.list",
        "__builtin__.bytes",
        "builtins.bytes",
        "__builtin__.set",
        "builtins.set",
    ]
)
_MODULE = "__torch__."  # what TorchScript calls its classes, each a module
_MOST_LEVELS, _MOST_NAMES = 40, 100_000  # of modules within each other; of what they hold


class _Modules(frozenset[str]):
    """The names that are allowed in a program of TorchScript."""

    def __contains__(self, name: object) -> bool:
        own = isinstance(name, str) and name.startswith(_MODULE)
        return own or super().__contains__(name)


_MODULES = _Modules(ALLOWED)
OLD_BEGIN = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # a pickle of a magic number
_OLD_VERSION = 1001
_MOST_DIMENSIONS = 16
_MOST_PICKLE = 2**28  # bytes; arrays of NumPy stand in the pickle itself


class _Storage(NamedTuple):
    """A storage, as a tensor names it."""

    kind: str
    key: str


class _TorchFile:
    """What both forms have in common.

    Attributes:
        document: what was saved; each tensor or array is a `Made`.
    """

    document: Any

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken, self._read_before = 0, set[int]()  # by id: the document keeps the values
        self._alone: frozenset[str] = frozenset()

    def _record(self, storage: _Storage) -> bytes:
        raise NotImplementedError

    def note(self, values: Collection[Any]) -> None:
        """Say which tensors will be read: a storage of only one of them is not kept.

        Raises:
            RefusedError: one is of a storage of another kind.
        """
        tensors = [_bare(value) for value in values]
        named = [t.arguments[:1] for t in tensors if t.name in _TENSORS]
        keys = [_storage(argument).key for arguments in named for argument in arguments]
        self._alone = frozenset(key for key, count in Counter(keys).items() if count == 1)

    @staticmethod
    def shape(value: Any) -> tuple[int, ...]:
        """The shape that a tensor or an array claims.

        Raises:
            RefusedError: it is neither, or of an odd shape.
        """
        value = _bare(value)
        if not is_tensor(value):
            raise RefusedError("no tensor")
        try:
            return _numbers(value.arguments[2] if value.name in _TENSORS else value.state[1])
        except (TypeError, IndexError, KeyError) as error:
            raise RefusedError(f"a tensor that is not whole ({error})") from error

    def array(self, value: Any) -> NDArray[Any]:
        """The numbers of a tensor (float32 if they are floating point) or of an array.

        Raises:
            RefusedError: it is neither, is of another type, or claims more numbers than there are.
            OSError: the file cannot be read.
        """
        value = _bare(value)
        if not is_tensor(value):
            raise RefusedError("no tensor")
        try:
            found = self._tensor(value) if value.name in _TENSORS else _array(value)
        except (ValueError, TypeError, IndexError, KeyError, OverflowError) as error:
            raise RefusedError(f"a tensor that is not whole ({error})") from error
        self._taken += 0 if id(value) in self._read_before else found.nbytes
        self._read_before.add(id(value))
        if self._taken > 4 * self._size:  # tensors may share a storage, and half becomes float
            raise RefusedError("tensors of more numbers than the file has")
        return found

    def _tensor(self, value: Made) -> NDArray[Any]:
        persistent, offset, shape, strides = value.arguments[:4]
        storage = _storage(persistent)
        kind = np.dtype(_STORAGES[storage.kind])
        shape, strides = _numbers(shape), _numbers(strides)
        (offset,) = _numbers((offset,))
        data = self._record(storage)
        if len(shape) != len(strides) or math.prod(shape) * kind.itemsize > len(data):
            raise RefusedError(f"a tensor of the shape {shape} with {len(data)} bytes")
        steps = tuple(step * kind.itemsize for step in strides)
        # NumPy compares shape, strides and offset with the bytes that are there
        found = np.ndarray(shape, kind, data, offset * kind.itemsize, steps)
        if storage.kind == "torch.BFloat16Storage":
            return np.asarray((found.astype(np.uint32) << 16).view(np.float32))
        if storage.kind == "torch.BoolStorage":
            return np.asarray(found != 0)
        return found.astype(np.float32) if kind.kind == "f" else np.array(found)


class TorchArchive(_TorchFile):
    """An archive of `torch.save`, open."""

    def __init__(self, stream: BinaryIO) -> None:
        """Read what the archive says, but no numbers.

        Args:
            stream: of a regular file, at its begin.

        Raises:
            RefusedError: it is no such archive, or its pickle says more than tensors and plain values.
            OSError: it cannot be read.
        """
        super().__init__(stream.seek(0, 2))
        self._spent, self._opened = 0, set[str]()
        self._records: dict[str, bytes] = {}
        stream.seek(0)
        with _zip_errors():
            self._archive = zipfile.ZipFile(stream)
            names = [n for n in self._archive.namelist() if n.split("/", 1)[-1] == "data.pkl"]
            if len(names) != 1:
                raise RefusedError("an archive without data.pkl")
            self._root = names[0].removesuffix("data.pkl")
            program = self._root + "constants.pkl" in self._archive.namelist()
            self._require_little_endian()
            pickled = self._read("data.pkl", limit=_MOST_PICKLE)
        if program:  # of TorchScript: its code is not read, its modules are tables of tensors
            self.document = dict(_flat(plain_pickle(pickled, _MODULES)))
        else:
            self.document = plain_pickle(pickled, ALLOWED)

    def _record(self, storage: _Storage) -> bytes:
        key = storage.key
        if key in self._records:
            return self._records[key]
        with _zip_errors():
            record = self._read(f"data/{key}", limit=self._size)
        self._spent += 0 if key in self._opened else len(record)
        self._opened.add(key)
        if self._spent > self._size:
            raise RefusedError("records that overlap")
        if key not in self._alone:
            self._records[key] = record
        return record

    def _read(self, name: str, *, limit: int) -> bytes:
        record = self._archive.getinfo(self._root + name)
        if record.compress_type != zipfile.ZIP_STORED:
            raise RefusedError(f"a compressed record {name}, which torch does not write")
        if record.file_size > min(limit, self._size):
            raise RefusedError(f"a record {name} of {record.file_size} bytes")
        return self._archive.read(record)

    def _require_little_endian(self) -> None:
        if self._root + "byteorder" in self._archive.namelist():
            order = self._read("byteorder", limit=16)
            if order != b"little":
                raise RefusedError(f"numbers in the byte order {order.decode('latin1')!r}")


class OldTorchFile(_TorchFile):
    """A file of before 1.6: a magic number, a version, sizes, the document, keys; then the numbers."""

    def __init__(self, stream: BinaryIO) -> None:
        """Read what the file says, and where its numbers are.

        Args:
            stream: of a regular file, at its begin.

        Raises:
            RefusedError: as `TorchArchive`; or its storages are not there.
            OSError: it cannot be read.
        """
        super().__init__(stream.seek(0, 2))
        self._stream = stream
        stream.seek(len(OLD_BEGIN))
        version, sizes = (plain_pickle(stream, ()) for _ in range(2))
        if version != _OLD_VERSION or not isinstance(sizes, dict):
            raise RefusedError(f"torch's old form in the version {str(version)[:20]}")
        if sizes.get("little_endian") is not True:
            raise RefusedError("numbers that are not little-endian")
        left: list[Persistent] = []
        self.document = plain_pickle(stream, ALLOWED, left)
        kinds = {storage.key: storage.kind for storage in map(_storage, left)}
        self._places = self._found(plain_pickle(stream, ()), kinds)

    def _found(self, keys: Any, kinds: dict[str, str]) -> dict[str, tuple[int, int]]:
        """Where each storage lies: begin, and length in bytes."""
        if not isinstance(keys, list) or set(map(str, keys)) != set(kinds):
            raise RefusedError("a damaged file (other storages than its tensors name)")
        places, place = {}, self._stream.tell()
        for key in keys:
            self._stream.seek(place)
            count = int.from_bytes(self._stream.read(8), "little")
            begin, length = place + 8, count * np.dtype(_STORAGES[kinds[key]]).itemsize
            place = begin + length
            if place > self._size:
                raise RefusedError("a damaged file (it ends within its numbers)")
            places[key] = begin, length
        return places

    def _record(self, storage: _Storage) -> bytes:
        begin, length = self._places[storage.key]
        self._stream.seek(begin)
        return self._stream.read(length)


def open_torch(stream: BinaryIO) -> TorchArchive | OldTorchFile:
    """A file of `torch.save` in either form.

    Args:
        stream: of a regular file, at its begin; to be left open while numbers are read.

    Raises:
        RefusedError: it is neither, or its pickle says more than tensors and plain values.
        OSError: it cannot be read.
    """
    begin = stream.read(len(OLD_BEGIN))
    stream.seek(0)
    if begin == OLD_BEGIN:
        return OldTorchFile(stream)
    if begin.startswith(b"\x80"):
        raise RefusedError("a pickle, but not one of torch.save")
    if not begin.startswith(b"PK"):
        raise RefusedError("neither of torch.save nor safetensors")
    return TorchArchive(stream)


@contextlib.contextmanager
def _zip_errors() -> Iterator[None]:
    """What reading an archive raises, as `RefusedError`; UnicodeError is a ValueError."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        EOFError,
        KeyError,
        ValueError,
        RuntimeError,
        OverflowError,
    ) as error:
        raise RefusedError(f"a damaged archive ({type(error).__name__})") from error


def _flat(module: Any) -> Iterator[tuple[str, Any]]:
    """What a program's modules hold, by dotted names, as a state dictionary has it."""
    waiting, seen = [("", module, 0)], 0
    while waiting:
        prefix, value, level = waiting.pop()
        seen += 1
        if level > _MOST_LEVELS or seen + len(waiting) > _MOST_NAMES:
            raise RefusedError("a program whose modules have no end")
        inner = isinstance(value, Made) and value.name.startswith(_MODULE)
        if not inner:
            yield prefix, value
            continue
        state = value.state if isinstance(value.state, dict) else {}
        for name, part in state.items():
            waiting.append((f"{prefix}.{name}" if prefix else str(name), part, level + 1))


def is_tensor(value: Any) -> bool:
    """Whether a value of a document is a tensor, a parameter, or an array."""
    value = _bare(value)
    return isinstance(value, Made) and value.name in (*_TENSORS, *_ARRAYS)


def _bare(value: Any) -> Any:
    """The tensor of a parameter."""
    parameter = isinstance(value, Made) and value.name == _PARAMETER and value.arguments
    return value.arguments[0] if parameter else value


def _storage(value: Any) -> _Storage:
    if not isinstance(value, Persistent) or not isinstance(value.key, tuple):
        raise RefusedError("a tensor without a storage")
    word, kind, key = value.key[:3]
    plain = isinstance(key, str) and key.isascii() and key.isalnum() and len(key) < 20
    if word != "storage" or not isinstance(kind, Global) or kind.name not in _STORAGES or not plain:
        raise RefusedError("a storage of another kind")
    return _Storage(kind.name, key)


def _numbers(values: Any) -> tuple[int, ...]:
    """A shape, or strides: a few numbers, none of them below 0."""
    if not isinstance(values, tuple) or len(values) > _MOST_DIMENSIONS:
        raise RefusedError("a tensor of an odd shape")
    if any(type(n) is not int or not 0 <= n < 2**40 for n in values):
        raise RefusedError("a tensor of an odd shape")
    return values


def _array(value: Made) -> NDArray[Any]:
    """An array of NumPy: `_reconstruct` makes an empty one, its state has type, shape and bytes."""
    if not isinstance(value.state, tuple) or len(value.state) != 5:
        raise RefusedError("an array without numbers")
    _, shape, kind, fortran, data = value.state
    shape, kind = _numbers(shape), _array_type(kind)
    if isinstance(data, str):  # of Python 2
        data = data.encode("latin1")
    if not isinstance(data, bytes) or math.prod(shape) * kind.itemsize != len(data):
        raise RefusedError(f"an array of the shape {shape} whose bytes are not there")
    flat = np.frombuffer(data, np.uint8) != 0 if kind.kind == "b" else np.frombuffer(data, kind)
    found = flat.reshape(shape, order="F" if fortran is True else "C")
    return np.array(found, dtype=kind.newbyteorder("="))


def _array_type(value: Any) -> np.dtype[Any]:
    """A type by its name; its state says the order of bytes, and must say no more."""
    if not isinstance(value, Made) or value.name != "numpy.dtype":
        raise RefusedError("an array without a type")
    name = value.arguments[0]
    if not isinstance(name, str) or name not in _ARRAY_TYPES:
        shown = name[:20] if isinstance(name, str) else type(name).__name__
        raise RefusedError(f"an array of the type {shown}")
    order = "|"
    if value.state is not None:
        _, order, *more = value.state
        if order not in ("<", ">", "|", "=") or any(field is not None for field in more[:3]):
            raise RefusedError("an array of a type with fields")
    found: np.dtype[Any] = np.dtype(f"{order}{name}")
    return found
