"""Data sets as Hugging Face's `save_to_disk` writes them: which tables, and that these are not compressed."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

from vptkit.datasets.dataset_bounds import require_inside
from vptkit.errors import DataError
from vptkit.images.labelled_images import SPLIT_NAMES, split_of_name
from vptkit.regular_files import is_file, is_plain_name, read_regular
from vptkit.strict_json import parse_json

from .arrow_library import pyarrow

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["is_saved", "require_plain", "saved_tables"]

_MOST_TEXT = 16 << 20  # bytes of a JSON file beside the tables


def is_saved(data: Path) -> bool:
    """Whether a folder is one that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    saved = "state.json", "dataset_info.json"
    return is_file(data / "dataset_dict.json") or all(is_file(data / name) for name in saved)


def saved_tables(
    folder: Path, *, allow_outside: bool = False, any_split: bool = False
) -> list[tuple[str, Path]]:
    """The Arrow files of a saved data set, each with its split, "" where there are none.

    Args:
        folder: that holds state.json or dataset_dict.json.
        allow_outside: of `vptkit.datasets.dataset_bounds.require_inside`.
        any_split: splits may be called anything, as train[:10%]; then "" is each one's.

    Raises:
        DataError: a file is missing or broken, a split of another name, or tables that lie outside of
            the folder.
    """
    parts = [("", folder)]
    index = folder / "dataset_dict.json"
    if os.path.lexists(index):
        require_inside(folder, [index], allow_outside=allow_outside)
        parts = [
            ("" if any_split else _known_split(index, name), folder / _plain(index, name))
            for name in _listed(index, "splits")
        ]
    states = [(split, part / "state.json") for split, part in parts]
    require_inside(folder, [state for _, state in states], allow_outside=allow_outside)
    tables = [(split, file) for split, state in states for file in _tables(state)]
    require_inside(folder, [file for _, file in tables], allow_outside=allow_outside)
    return tables


def _plain(index: Path, name: object) -> str:
    if not isinstance(name, str) or not is_plain_name(name):
        raise DataError(f"{index}: a split is called {name!r}, which is not the name of a folder")
    return name


def _known_split(index: Path, name: object) -> str:
    split = split_of_name(name) if isinstance(name, str) else None
    if split is None:
        raise DataError(f"{index}: a split is called {name!r}, expected {', '.join(SPLIT_NAMES)}")
    return split


def _tables(state: Path) -> list[Path]:
    """The Arrow files of a saved split, which lie beside its state.json."""
    names = [
        entry.get("filename") if isinstance(entry, dict) else None
        for entry in _listed(state, "_data_files")
    ]
    for name in names:
        if not isinstance(name, str) or not is_plain_name(name):
            raise DataError(f"{state}: {name!r} is not the name of a file beside it")
    return [state.with_name(str(name)) for name in names]


def _listed(file: Path, key: str) -> list[Any]:
    """What a JSON file lists under a key."""
    found = parse_json(read_regular(file, DataError, limit=_MOST_TEXT), file, DataError).get(key)
    if not isinstance(found, list):
        raise DataError(f"{file}: not as Hugging Face's save_to_disk writes it, with {key!r}")
    return found


def require_plain(file: Path, source: Any) -> None:
    """Refuse compressed batches, which Hugging Face does not write: a few bytes would fill memory.

    Whether one is compressed stands in its header alone (Arrow's Message.fbs), and pyarrow does not
    tell; so the header's table is looked up as FlatBuffers lays it out.

    Args:
        file: for messages.
        source: pyarrow's map of it.

    Raises:
        DataError: one is.
    """
    reader = pyarrow().ipc.MessageReader.open_stream(source)
    for message in iter(reader):
        content = memoryview(message.metadata).cast("B")
        header = _child(content, _number("<I", content, 0), 2)
        if message.type == "dictionary":
            header = _child(content, header, 1)
        if message.type != "schema" and _field(content, header, 3):
            raise DataError(
                f"{file}: its batches are compressed; expected them as save_to_disk writes"
            )


def _field(content: memoryview, table: int, number: int) -> int:
    """Where a field of a FlatBuffers table is, 0 where it is not there."""
    offsets = table - _number("<i", content, table)
    slot = 4 + 2 * number
    if slot >= _number("<H", content, offsets):
        return 0
    offset = _number("<H", content, offsets + slot)
    return table + offset if offset else 0


def _child(content: memoryview, table: int, number: int) -> int:
    """Where a table begins that a field points to."""
    place = _field(content, table, number)
    return place + _number("<I", content, place)


def _number(form: str, content: memoryview, place: int) -> int:
    return int(struct.unpack_from(form, content, place)[0])
