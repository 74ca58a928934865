"""A file of tensors of whatever form, and the one table of tensors within it.

Training scripts keep a model beside its optimizer, and often two of it: the one that is trained and
an average or a teacher, which is the better one. Where several are there, the first of `_CONTAINERS`
is taken, as timm and the scripts themselves do.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from vptkit.backbones.stored_tensor import StoredTensor
from vptkit.formats.tensor_file import require_unchanged, stored_tensors
from vptkit.regular_files import stamp_of

from .plain_pickle import RefusedError
from .published_names import recognised
from .torch_archive import is_tensor, open_torch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from vptkit.errors import VptkitError

    from .torch_archive import OldTorchFile, TorchArchive

__all__ = ["Tensors", "is_torch_file", "opened_torch", "read_tensors_of"]

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_CONTAINERS = (  # of timm's order: averages before what was trained; a teacher before its student
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "shadow"),
    *("teacher", "target_encoder", "momentum_encoder", "state_dict", "model_state_dict"),
    *("model", "module", "net", "network", "backbone", "encoder", "student", "weights", "params"),
)
_MOST_LEVELS = 4
SAVE_AGAIN = "Other objects than tensors are refused: save the tensors alone, best as .safetensors."


class Tensors(NamedTuple):
    """Tensors by the names of a file.

    Attributes:
        arrays: name → numbers, which are read when they are asked for.
        container: the keys that lead to them, as "teacher"; "" where they lie at the top.
        beside: other names and keys there, for formats that are told by them.
    """

    arrays: dict[str, StoredTensor]
    container: str
    beside: frozenset[str]


def read_tensors_of(stream: BinaryIO, path: Path, error: type[VptkitError]) -> Tensors:
    """The weights in an opened file: safetensors, or of `torch.save`. Nothing of it is run.

    Args:
        stream: of a regular file, at its begin; it stays open while what it holds is used.
        path: its name, for messages.
        error: what to raise.

    Raises:
        error: it is damaged, or holds other things than tensors.
    """
    if not is_torch_file(stream, path):
        arrays = stored_tensors(stream, path, error)
        return Tensors(arrays, "", frozenset(arrays))
    with opened_torch(stream, path, error) as archive:
        container, found = _weights_in(archive.document)
        if not found:
            kind = "a tensor" if is_tensor(archive.document) else type(archive.document).__name__
            raise error(f"{path}: holds {kind}, expected tensors by name")
        tensors = {name: value for name, value in found.items() if is_tensor(value)}
        archive.note(tensors.values())
        stamp = stamp_of(stream)

        def read(value: Any) -> NDArray[Any]:
            with _refusals(path, error):
                numbers = archive.array(value)
            require_unchanged(stream, stamp, path, error)
            return numbers

        stored = {n: StoredTensor(archive.shape(v), partial(read, v)) for n, v in tensors.items()}
        return Tensors(stored, container, frozenset(map(str, found)))


def is_torch_file(stream: BinaryIO, path: Path) -> bool:
    """Whether a stream is of `torch.save`, by its first bytes; where these tell nothing, by its name.

    Args:
        stream: at its begin, where it stays.
        path: its name.
    """
    head = stream.read(9)
    stream.seek(0)
    if head[8:9] == b"{":
        return False
    return head.startswith((_ZIP, _PICKLE)) or path.suffix.lower() != ".safetensors"


@contextlib.contextmanager
def opened_torch(
    stream: BinaryIO, path: Path, error: type[VptkitError]
) -> Iterator[TorchArchive | OldTorchFile]:
    """A file of `torch.save`, while its tensors are read.

    Raises:
        error: it is damaged, or holds other things than tensors.
    """
    with _refusals(path, error):
        yield open_torch(stream)


@contextlib.contextmanager
def _refusals(path: Path, error: type[VptkitError]) -> Iterator[None]:
    """What reading a file of `torch.save` refuses, in words for its user."""
    try:
        yield
    except RefusedError as cause:
        raise error(f"{path}: not a file of tensors: {cause}. {SAVE_AGAIN}") from cause
    except OSError as cause:
        raise error(f"{path}: {cause.strerror or cause}") from cause


def _weights_in(document: Any) -> tuple[str, dict[str, Any]]:
    """The table whose names are those of a Vision Transformer, and the keys that lead there.

    Where there is none such, the first that holds tensors at all: why it does not fit is said later.
    """
    tables = list(_tables(document, (), 0))
    known = [found for found in tables if recognised(found[1])]
    keys, table = (known or tables or [((), {})])[0]
    return ".".join(keys), table


def _tables(
    document: Any, keys: tuple[str, ...], level: int
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every dictionary that holds tensors by name, outer ones first, in the order of `_CONTAINERS`."""
    if not isinstance(document, dict) or level > _MOST_LEVELS:
        return
    named = {name: value for name, value in document.items() if isinstance(name, str)}
    if any(map(is_tensor, named.values())):
        yield keys, named
    for name in _CONTAINERS:
        yield from _tables(named.get(name), (*keys, name), level + 1)
