"""Tensor files (safetensors), read and written with numpy alone."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import load, load_file, save_file

from vptkit.atomic_files import atomic_file
from vptkit.regular_files import require_regular
from vptkit.strict_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.errors import VptkitError

__all__ = [
    "parse_metadata",
    "parse_tensors",
    "read_metadata",
    "read_tensors",
    "write_tensors",
]


def read_tensors(path: Path, error: type[VptkitError]) -> dict[str, NDArray[Any]]:
    """All tensors of a safetensors file; bfloat16, which numpy lacks, becomes float32.

    Raises:
        error: the file is missing, truncated, or not a safetensors file.
    """
    _require(path, error)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as cause:
        raise error(_complaint(path, cause)) from cause
    except (AttributeError, KeyError, TypeError):  # a type that numpy lacks
        return _arrays(path.read_bytes(), path, error)


def parse_tensors(
    content: bytes, source: object, error: type[VptkitError]
) -> dict[str, NDArray[Any]]:
    """All tensors of a safetensors file that was read; see `read_tensors`.

    Raises:
        error: not a safetensors file.
    """
    try:
        return load(content)
    except SafetensorError as cause:
        raise error(_complaint(source, cause)) from cause
    except (AttributeError, KeyError, TypeError):  # a type that numpy lacks
        return _arrays(content, source, error)


def parse_metadata(content: bytes, source: object, error: type[VptkitError]) -> dict[str, str]:
    """The metadata of a safetensors file that was read; see `read_metadata`.

    Raises:
        error: not a safetensors file.
    """
    size = int.from_bytes(content[:8], "little")
    header = parse_json(content[8 : 8 + size], source, error)
    found = header.get("__metadata__") or {}
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise error(f"{source}: not a readable safetensors file (its metadata is not text)")
    return found


def read_metadata(path: Path, error: type[VptkitError]) -> dict[str, str]:
    """The string-to-string metadata of a safetensors file; empty if it has none.

    Raises:
        error: the file is missing, truncated, or not a safetensors file.
    """
    _require(path, error)
    try:
        with safe_open(path, framework="np") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as cause:
        raise error(_complaint(path, cause)) from cause


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


def _require(path: Path, error: type[VptkitError]) -> None:
    """Safetensors opens by name: a FIFO would hold it for ever."""
    if path.is_dir():
        raise error(f"{path}: a folder, expected a .safetensors file")
    require_regular(path, error)


def _arrays(content: bytes, source: object, error: type[VptkitError]) -> dict[str, NDArray[Any]]:
    views = deserialize(content)  # type: ignore[no-untyped-call]
    return {name: _array(source, name, view, error) for name, view in views}


def _array(path: object, name: str, view: Any, error: type[VptkitError]) -> NDArray[Any]:
    dtypes = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "U8": "u1", "I64": "<i8", "I32": "<i4"}
    data, shape = view["data"], view["shape"]
    if view["dtype"] == "BF16":
        bits = np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16
        return np.asarray(bits.view(np.float32).reshape(shape))
    if view["dtype"] not in dtypes:
        raise error(
            f"{path}: tensor {name} has the type {view['dtype']}, expected one of "
            f"BF16 {' '.join(dtypes)}"
        )
    return np.asarray(np.frombuffer(data, dtype=dtypes[view["dtype"]]).reshape(shape))


def _complaint(path: object, cause: Exception) -> str:
    return f"{path}: not a readable safetensors file ({cause}); it may be truncated or damaged"


def _errno_of(cause: SafetensorError) -> int:
    found = re.search(r"os error (\d+)", str(cause))
    return int(found.group(1)) if found else errno.EIO
