"""Which file a path of weights means, and opening it: a file, a folder of a hub, an index of shards.

A folder is a stranger's: what its index and its names say is read only as far as it stays in that
folder. In the cache of Hugging Face's hub every file is a link into the folder `blobs` beside
`snapshots`; there, and nowhere else, a link may lead.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.errors import BackboneError
from vptkit.paths.path_advice import advice, advised
from vptkit.paths.path_kind import inner_tensors, names_below
from vptkit.regular_files import is_file, is_folder, is_plain_name, open_regular, read_bounded
from vptkit.strict_json import parse_json

from .tensor_source import Tensors, read_tensors_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

__all__ = ["INDEX", "folder_json", "opened_weights_file", "weights_file"]

INDEX = ".index.json"
_MOST_JSON = 1 << 25  # bytes; the index of a ViT-g has 100 kB
_MOST_SHARDS = 1000


def weights_file(path: Path) -> Path:
    """The file that a user means by a path: itself, or that in a folder as the hub has it.

    Raises:
        BackboneError: a folder without weights that are known by their name.
    """
    if not is_folder(path):
        return path
    inner = inner_tensors(path, names_below(path))
    if inner is None:
        raise BackboneError(
            f"{path}: a folder without model.safetensors, model.safetensors{INDEX} or "
            "pytorch_model.bin (and without a single .safetensors or .pth)"
        )
    return inner


@contextlib.contextmanager
def opened_weights_file(path: Path) -> Iterator[Tensors]:
    """Yield all tensors of a file or an index of shards, under its own names.

    Those of safetensors are read from the open file when they are asked for, within the block.

    Raises:
        BackboneError: there is no such file, it is damaged, or it is something else than tensors;
            from a tensor that is read: the file was changed meanwhile.
    """
    with contextlib.ExitStack() as stack:
        if path.name.endswith(INDEX):
            yield _shards(path, stack)
            return
        with advised(path, "weights", BackboneError):
            stream = stack.enter_context(open_regular(path, BackboneError))
            found = read_tensors_of(stream, path, BackboneError)
        if not found.arrays:
            raise BackboneError(advice(path, "weights") or f"{path}: holds no tensors")
        yield found


def folder_json(folder: Path, name: str) -> dict[str, Any] | None:
    """A JSON document of a folder; None if it has none of this name.

    Raises:
        BackboneError: it is not readable, or lies elsewhere.
    """
    if not is_file(folder / name):
        return None
    with _opened(folder, name) as stream:
        text = read_bounded(stream, folder / name, BackboneError, limit=_MOST_JSON)
    return parse_json(text, folder / name, BackboneError)


def _shards(index: Path, stack: contextlib.ExitStack) -> Tensors:
    """The tensors of all shards, whose files the stack keeps open."""
    folder = index.parent
    places = (folder_json(folder, index.name) or {}).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise BackboneError(f"{index}: no index of shards: weight_map is no table of file names")
    files = sorted(set(places.values()))
    if len(files) > _MOST_SHARDS:
        raise BackboneError(f"{index}: {len(files)} shards, the most is {_MOST_SHARDS}")
    arrays: dict[str, Any] = {}
    for file in files:
        stream = stack.enter_context(_opened(folder, file))
        found = read_tensors_of(stream, folder / file, BackboneError).arrays
        wanted = {name for name, place in places.items() if place == file}
        missing = sorted(wanted - set(found))
        if missing:
            raise BackboneError(
                f"{folder / file}: lacks {missing[0]}, which {index.name} places there"
            )
        arrays |= {name: found[name] for name in wanted}
    return Tensors(arrays, "", frozenset(arrays))


def _opened(folder: Path, name: str) -> BinaryIO:
    """A file directly in a folder; a link within a hub's cache leads to its blobs."""
    if not is_plain_name(name):
        raise BackboneError(f"{folder}: the name {name[:100]!r} does not stay in the folder")
    place = Path(os.path.realpath(folder))
    in_cache = (folder / name).is_symlink() and place.parent.name == "snapshots"
    inside = place.parent.parent / "blobs" if in_cache else place
    return open_regular(folder / name, BackboneError, inside=f"{inside}/")
