"""Other people's checkpoints as named arrays: tensors only, nothing of a file is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.checkpoints.plain_pickle import RefusedError
from vptkit.checkpoints.tensor_source import is_torch_file, opened_torch
from vptkit.checkpoints.torch_archive import is_tensor
from vptkit.errors import AdapterError
from vptkit.formats.tensor_file import read_opened_tensors
from vptkit.regular_files import open_regular

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.checkpoints.torch_archive import OldTorchFile, TorchArchive

__all__ = ["read_state"]

_CONTAINERS = ("model", "state_dict")  # where training scripts keep the tensors


def read_state(path: Path) -> dict[str, NDArray[Any]]:
    """Every tensor of a safetensors file or of a torch file, by name.

    Of a training checkpoint (a dictionary with the entry "model" or "state_dict") only that entry
    is taken; a leading "module." of data parallel training is cut off.

    Args:
        path: of any name; its first bytes tell what it is.

    Raises:
        AdapterError: missing, damaged, or it holds other things than tensors and arrays.
    """
    if path.is_dir():
        raise AdapterError(f"{path}: a folder, expected a file of tensors")
    with open_regular(path, AdapterError) as stream:
        if not is_torch_file(stream, path):
            return _plain(read_opened_tensors(stream, path, AdapterError)[1])
        with opened_torch(stream, path, AdapterError) as archive:
            return _plain(_arrays(path, archive))


def _arrays(path: Path, archive: TorchArchive | OldTorchFile) -> dict[str, NDArray[Any]]:
    document = archive.document
    for name in _CONTAINERS:
        if isinstance(document, dict) and isinstance(document.get(name), dict):
            document = document[name]
            break
    if not isinstance(document, dict) or not document:
        kind = "a tensor" if is_tensor(document) else type(document).__name__
        raise AdapterError(f"{path}: holds {kind}, expected tensors by name")
    return {str(name): _array(path, str(name), archive, value) for name, value in document.items()}


def _array(path: Path, name: str, archive: TorchArchive | OldTorchFile, value: Any) -> NDArray[Any]:
    try:
        return archive.array(value)
    except (RefusedError, OSError) as error:
        raise AdapterError(f"{path}: not tensors of real numbers: {name} ({error})") from error


def _plain(state: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.removeprefix("module."): value for name, value in state.items()}
