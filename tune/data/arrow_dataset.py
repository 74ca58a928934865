"""Labelled images in columns: Parquet files, and the Arrow files that Hugging Face saves.

Read with pyarrow; the package `datasets` is not needed. Of its formats are read: an image column
(a struct of bytes and path, or bytes alone), a label column (numbers, whose names stand in the
schema's metadata, or names; or lists of them: `label_column`), and splits told by the files' names. A saved data set is mapped into
memory. Parquet is compressed, so its images are copied, as they are encoded, into an unnamed
temporary file (in $TMPDIR, one for each process) that is mapped likewise.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from vptkit.datasets.dataset_bounds import require_inside
from vptkit.errors import DataError, MissingExtraError, OutputError
from vptkit.images.labelled_images import (
    SPLIT_NAMES,
    Listing,
    Row,
    require_label,
    split_of_file,
    split_of_name,
)
from vptkit.regular_files import is_file, is_plain_name, read_regular, require_regular
from vptkit.strict_json import parse_json

from .label_column import find_label_column, listed_feature
from .parquet_bounds import most_bytes, rows_at_once
from .parquet_footer import read_row_groups, require_sane_footer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vptkit.images.image_file import ImageFile

    from .label_column import LabelColumn

__all__ = ["read_parquet", "read_saved"]

# Bytes of a Parquet file that are read at once, instead of a whole row group's. From 64 kB to 4 MB it
# makes no difference that could be measured (docs/benchmarks.md).
_BUFFER = 1 << 20
_MOST_TEXT = 16 << 20  # bytes of a JSON file beside the tables
_LONGEST_PATH = 4096


@dataclass(frozen=True, slots=True)
class _MappedImage:
    """An image in memory that is mapped from a file.

    Attributes:
        file: what it came from.
        name: of the image, without folders.
        content: the encoded image.
    """

    file: Path
    name: str
    content: memoryview

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"

    def read_bytes(self) -> bytes:
        """The encoded image."""
        return bytes(self.content)


class _Columns(NamedTuple):
    """Which columns hold the images and the labels."""

    image: str
    label: LabelColumn


class _Place(NamedTuple):
    """A row, for messages: it is text only where there is one."""

    file: Path
    row: int

    def __str__(self) -> str:
        return f"{self.file}: row {self.row}"


class _Cell(NamedTuple):
    """A row: the encoded image (None: it lies at `path`), its path if any, its label."""

    content: Any  # pyarrow.Buffer | None
    path: str | None
    label: object


def read_parquet(files: Sequence[Path], root: Path, *, multilabel: bool = False) -> Listing:
    """The images of Parquet files, in the order of their rows.

    Args:
        files: their names or folders may tell the split.
        root: the folder that they lie in.
        multilabel: a column of lists is meant, if there is one beside one of single labels.

    Raises:
        DataError: not a Parquet file, no such columns, or a row without image or label.
        MissingExtraError: pyarrow is not installed.
        OutputError: no space for the temporary file.
    """
    parquet = _pyarrow().parquet
    rows: list[Row] = []
    names: tuple[str, ...] | None = None
    for file in files:
        split = split_of_file(file, root)
        require_sane_footer(file)
        with _readable(file), parquet.ParquetFile(file) as table:
            columns = _find_columns(file, table.schema_arrow, multilabel=multilabel)
            schema = table.metadata.schema
            paths = [schema.column(i).path for i in range(len(schema))]
            groups = read_row_groups(file, paths)
            words = columns.label.words_in(paths)
        with (
            _readable(file),
            parquet.ParquetFile(file, buffer_size=_BUFFER, read_dictionary=words) as table,
        ):
            wanted = [columns.image, columns.label.name]
            batches = table.iter_batches(rows_at_once(file, groups, wanted), columns=wanted)
            found = _spooled(file, _cells(file, columns, batches))
        names = _same_names(file, names, columns.label.classes, first=not rows)
        rows += [Row(split, label, image) for label, image in found]
    return Listing(root, rows, names)


def read_saved(folder: Path, *, allow_outside: bool = False, multilabel: bool = False) -> Listing:
    """The images of `Dataset.save_to_disk` or `DatasetDict.save_to_disk`.

    Args:
        folder: that holds state.json or dataset_dict.json.
        allow_outside: of `vptkit.datasets.dataset_bounds.require_inside`.
        multilabel: of `read_parquet`.

    Raises:
        DataError: a file is missing or broken, no such columns, a row without image or label, or
            tables that lie outside of the folder. Images may still.
        MissingExtraError: pyarrow is not installed.
    """
    parts = {"": folder}
    index = folder / "dataset_dict.json"
    if os.path.lexists(index):
        require_inside(folder, [index], allow_outside=allow_outside)
        parts = {_known_split(index, name): folder / name for name in _listed(index, "splits")}
    states = {split: part / "state.json" for split, part in parts.items()}
    require_inside(folder, states.values(), allow_outside=allow_outside)
    tables = [(split, file) for split, state in states.items() for file in _tables(state)]
    require_inside(folder, [file for _, file in tables], allow_outside=allow_outside)
    rows: list[Row] = []
    names: tuple[str, ...] | None = None
    for split, file in tables:
        columns, found = _read_arrow(file, multilabel=multilabel)
        names = _same_names(file, names, columns.label.classes, first=not rows)
        rows += [Row(split, label, image) for label, image in found]
    return Listing(folder, rows, names)


def _read_arrow(file: Path, *, multilabel: bool) -> tuple[_Columns, list[tuple[object, ImageFile]]]:
    pyarrow = _pyarrow()
    require_regular(file, DataError)
    with _readable(file):
        _require_plain(file, pyarrow.memory_map(str(file)))
    with _readable(file), pyarrow.ipc.open_stream(pyarrow.memory_map(str(file))) as stream:
        columns = _find_columns(file, stream.schema, multilabel=multilabel)
        found: list[tuple[object, ImageFile]] = []
        for number, cell in enumerate(_cells(file, columns, stream)):
            if cell.content is None:
                found.append((cell.label, _outside(file, cell.path)))
            else:
                name = _name(cell, number)
                found.append((cell.label, _MappedImage(file, name, memoryview(cell.content))))
        return columns, found


def _require_plain(file: Path, source: Any) -> None:
    """Refuse compressed batches, which Hugging Face does not write: a few bytes would fill memory.

    Whether one is compressed stands in its header alone (Arrow's Message.fbs), and pyarrow does not
    tell; so the header's table is looked up as FlatBuffers lays it out.
    """
    reader = _pyarrow().ipc.MessageReader.open_stream(source)
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


def _spooled(file: Path, cells: Iterator[_Cell]) -> list[tuple[object, ImageFile]]:
    """Label and image of each row; the images in a temporary file that ends with the process."""
    found: list[tuple[object, str, int, ImageFile | None]] = []
    room = most_bytes(file)
    with tempfile.TemporaryFile(prefix="vptkit-") as spool:
        for number, cell in enumerate(cells):
            if cell.content is None:
                found.append((cell.label, "", 0, _outside(file, cell.path)))
            else:
                if (room := room - cell.content.size) < 0:  # one image in a thousand rows
                    raise DataError(f"{file}: its images are more than {most_bytes(file)} bytes")
                spool.write(cell.content)
                found.append((cell.label, _name(cell, number), cell.content.size, None))
        spool.flush()
        empty = spool.tell() == 0
        view = memoryview(b"" if empty else mmap.mmap(spool.fileno(), 0, access=mmap.ACCESS_READ))
    images: list[tuple[object, ImageFile]] = []
    for label, name, size, outside in found:
        images.append((label, outside or _MappedImage(file, name, view[:size])))
        view = view[size:]
    return images


def _cells(file: Path, columns: _Columns, batches: Iterator[Any]) -> Iterator[_Cell]:
    number = 0
    for batch in batches:
        # Offsets beyond the file would be followed: pyarrow checks them only if it is asked to.
        used = batch.select([columns.image, columns.label.name])
        used.validate(full=True)
        images, paths = _contents(used.column(columns.image))
        labels = columns.label.values(_Place(file, number), used.column(columns.label.name))
        for content, path, label in zip(images, paths, labels, strict=True):
            if not content.is_valid and not path:
                raise DataError(f"{file}: row {number}: no image")
            if path and len(path) > _LONGEST_PATH:
                raise DataError(f"{file}: row {number}: a path of {len(path)} characters")
            for one in label if isinstance(label, list) else [label]:
                require_label(one, _Place(file, number))
            yield _Cell(content.as_buffer() if content.is_valid else None, path, label)
            number += 1


def _contents(column: Any) -> tuple[Any, list[str | None]]:
    """Bytes and path of each image, from a struct of both or from bytes alone."""
    if column.type.num_fields == 0:
        return column, [None] * len(column)
    kinds = [field.name for field in column.type]
    parts = dict(zip(kinds, column.flatten(), strict=True))
    paths = parts.get("path")
    if paths is None or not _is_text(paths.type):
        return parts["bytes"], [None] * len(column)
    return parts["bytes"], paths.to_pylist()


def _find_columns(file: Path, schema: Any, *, multilabel: bool) -> _Columns:
    features = _features(file, schema)
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise DataError(f"{file}: several columns are called {twice[0]!r}")
    images = [
        field.name for field in schema if _holds_images(field.type, features.get(field.name, {}))
    ]
    image, label = (
        _one(images, "image"),
        find_label_column(file, schema, features, multilabel=multilabel),
    )
    if image is None or label is None:
        raise DataError(
            f"{file}: expected one column of images (bytes, or a struct of bytes and path) and one "
            "of labels; called image and label if there are several. It has "
            + ", ".join(f"{field.name} ({field.type})" for field in schema)
        )
    return _Columns(image, label)


def _one(found: list[str], usual: str) -> str | None:
    """The only name, or among several the usual one."""
    if len(found) == 1:
        return found[0]
    return usual if usual in found else None


def _holds_images(kind: Any, feature: dict[str, Any]) -> bool:
    types = _pyarrow().types
    if types.is_struct(kind):
        return any(field.name == "bytes" and _is_binary(field.type) for field in kind)
    return _is_binary(kind) and feature.get("_type", "Image") in ("Image", "Value")


def _is_binary(kind: Any) -> bool:
    types = _pyarrow().types
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_text(kind: Any) -> bool:
    types = _pyarrow().types
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _features(file: Path, schema: Any) -> dict[str, Any]:
    """What Hugging Face wrote about the columns into the schema's metadata."""
    text = (schema.metadata or {}).get(b"huggingface", b"{}")
    found: Any = parse_json(text, f"{file}: its huggingface metadata is broken", DataError)
    for key in ("info", "features"):
        found = found.get(key) or {}
        if not isinstance(found, dict):
            raise DataError(f"{file}: its huggingface metadata is broken: {key} is no object")
    found = {name: listed_feature(entry) for name, entry in found.items()}
    return {name: entry for name, entry in found.items() if isinstance(entry, dict)}


def _same_names(
    file: Path, before: tuple[str, ...] | None, now: tuple[str, ...] | None, *, first: bool
) -> tuple[str, ...] | None:
    if not first and before != now:
        raise DataError(f"{file}: its class names differ from those of the files before it")
    return now


def _name(cell: _Cell, number: int) -> str:
    return PurePosixPath(cell.path).name if cell.path else f"row {number}"


def _outside(file: Path, path: str | None) -> Path:
    """An image that the table only points to."""
    found = file.parent / (path or "")
    if not is_file(found):
        raise DataError(f"{file}: holds no bytes of {path}, and there is no such file")
    return found


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


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Say which file is broken."""
    try:
        yield
    except _pyarrow().ArrowException as error:
        raise DataError(f"{file}: {error}") from error
    except (
        ValueError,
        OverflowError,
        LookupError,
        struct.error,
    ) as error:  # of values that Python lacks
        raise DataError(f"{file}: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                f"{tempfile.gettempdir()}: no space left for the images of {file}, which are "
                "unpacked there. Set TMPDIR to a folder with more."
            ) from error
        raise DataError(f"{file}: {error.strerror or error}") from error


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "data", "reading Parquet and Arrow files") from error
    return pa
