"""Other people's checkpoints as named arrays: tensors only, nothing of a file is run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vptkit.errors import AdapterError
from vptkit.formats.tensor_file import read_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["read_state"]

_CONTAINERS = ("model", "state_dict")  # where training scripts keep the tensors


def read_state(path: Path) -> dict[str, NDArray[Any]]:
    """Every tensor of a safetensors file or of a torch file, by name.

    Of a training checkpoint (a dictionary with the entry "model" or "state_dict") only that entry
    is taken; a leading "module." of data parallel training is cut off.

    Args:
        path: ends in .safetensors, or is a file of `torch.save`.

    Raises:
        AdapterError: missing, damaged, or it holds other things than tensors and arrays.
    """
    if path.is_dir():
        raise AdapterError(f"{path}: a folder, expected a file of tensors")
    if not path.is_file():
        raise AdapterError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return _plain(read_tensors(path, AdapterError))
    document = _load(path)
    for name in _CONTAINERS:
        if isinstance(document, dict) and isinstance(document.get(name), dict):
            document = document[name]
            break
    if not isinstance(document, dict) or not document:
        raise AdapterError(f"{path}: holds {type(document).__name__}, expected tensors by name")
    odd = [str(name) for name, value in document.items() if not _is_plain(value)]
    if odd:
        raise AdapterError(f"{path}: not tensors of real numbers: {', '.join(odd[:5])}")
    return _plain({str(name): _array(value) for name, value in document.items()})


def _load(path: Path) -> Any:
    kinds = [type(np.dtype(name)) for name in ("float16", "float32", "float64", "int64", "uint8")]
    # VPT's own files hold NumPy arrays; both names are those of `_reconstruct`, before and since 2.0
    rebuild = np.zeros(0).__reduce__()[0]
    names = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
    allowed: list[Any] = [np.ndarray, np.dtype, *kinds, *((rebuild, name) for name in names)]
    try:
        with torch.serialization.safe_globals(allowed):
            # The one place of vptkit that reads torch's format; weights_only builds tensors and
            # plain containers, and refuses everything else.
            return torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except OSError as error:
        raise AdapterError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # of many kinds, some of modules that are banned here
        # torch names the object on a later line; the first ones advise to load it nevertheless
        named = re.search(r"GLOBAL (\S+)", str(error))
        raise AdapterError(
            f"{path}: not a file of tensors: {named[1] if named else type(error).__name__}. "
            "Other objects than tensors are refused: save the tensors alone, best as .safetensors."
        ) from error


def _is_plain(value: object) -> bool:
    if isinstance(value, torch.Tensor):  # neither sparse, nor quantised, nor without numbers
        real = not (value.is_complex() or value.is_quantized or value.is_meta)
        return real and value.layout == torch.strided
    return isinstance(value, np.ndarray)


def _array(value: torch.Tensor | NDArray[Any]) -> NDArray[Any]:
    if isinstance(value, np.ndarray):
        return value
    return value.detach().to(torch.float32 if value.is_floating_point() else value.dtype).numpy()


def _plain(state: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.removeprefix("module."): value for name, value in state.items()}
