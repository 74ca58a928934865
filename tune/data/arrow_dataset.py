"""Labelled images in columns: Parquet files, and the Arrow files that Hugging Face saves.

Read with pyarrow; the package `datasets` is not needed. Of its formats are read: an image column
(a struct of bytes and path, or bytes alone), a label column (numbers, whose names stand in the
schema's metadata, or names; or lists of them: `label_column`), and splits told by the files' names. A saved data set is mapped into
memory. Parquet is compressed, so its images are copied, as they are encoded, into an unnamed
temporary file (in $TMPDIR, one for each process) that is mapped likewise.
"""

from __future__ import annotations

import mmap
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from vptkit.arrow_files.arrow_library import pyarrow, readable
from vptkit.arrow_files.image_column import (
    LONGEST_PATH,
    columns_text,
    contents,
    features_of,
    image_column,
    require_names,
)
from vptkit.arrow_files.parquet_bounds import most_bytes, rows_at_once
from vptkit.arrow_files.parquet_footer import read_row_groups, require_sane_footer
from vptkit.arrow_files.saved_folders import require_plain, saved_tables
from vptkit.errors import DataError
from vptkit.images.labelled_images import Listing, Row, require_label, split_of_file
from vptkit.regular_files import is_file, require_regular

from .label_column import find_label_column, listed_feature

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vptkit.images.image_file import ImageFile

    from .label_column import LabelColumn

__all__ = ["read_parquet", "read_saved"]

# Bytes of a Parquet file that are read at once, instead of a whole row group's. From 64 kB to 4 MB it
# makes no difference that could be measured (docs/benchmarks.md).
_BUFFER = 1 << 20


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
    parquet = pyarrow().parquet
    rows: list[Row] = []
    names: tuple[str, ...] | None = None
    for file in files:
        split = split_of_file(file, root)
        require_sane_footer(file)
        with readable(file), parquet.ParquetFile(file) as table:
            columns = _find_columns(file, table.schema_arrow, multilabel=multilabel)
            schema = table.metadata.schema
            paths = [schema.column(i).path for i in range(len(schema))]
            groups = read_row_groups(file, paths)
            words = columns.label.words_in(paths)
        with (
            readable(file),
            # Newer pyarrow reads row groups ahead unless it is told not to, and keeps them all.
            parquet.ParquetFile(
                file, buffer_size=_BUFFER, pre_buffer=False, read_dictionary=words
            ) as table,
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
    tables = saved_tables(folder, allow_outside=allow_outside)
    rows: list[Row] = []
    names: tuple[str, ...] | None = None
    for split, file in tables:
        columns, found = _read_arrow(file, multilabel=multilabel)
        names = _same_names(file, names, columns.label.classes, first=not rows)
        rows += [Row(split, label, image) for label, image in found]
    return Listing(folder, rows, names)


def _read_arrow(file: Path, *, multilabel: bool) -> tuple[_Columns, list[tuple[object, ImageFile]]]:
    arrow = pyarrow()
    require_regular(file, DataError)
    with readable(file):
        require_plain(file, arrow.memory_map(str(file)))
    with readable(file), arrow.ipc.open_stream(arrow.memory_map(str(file))) as stream:
        columns = _find_columns(file, stream.schema, multilabel=multilabel)
        found: list[tuple[object, ImageFile]] = []
        for number, cell in enumerate(_cells(file, columns, stream)):
            if cell.content is None:
                found.append((cell.label, _outside(file, cell.path)))
            else:
                name = _name(cell, number)
                found.append((cell.label, _MappedImage(file, name, memoryview(cell.content))))
        return columns, found


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
        images, paths = contents(used.column(columns.image))
        labels = columns.label.values(_Place(file, number), used.column(columns.label.name))
        for content, path, label in zip(images, paths, labels, strict=True):
            if not content.is_valid and not path:
                raise DataError(f"{file}: row {number}: no image")
            if path and len(path) > LONGEST_PATH:
                raise DataError(f"{file}: row {number}: a path of {len(path)} characters")
            for one in label if isinstance(label, list) else [label]:
                require_label(one, _Place(file, number))
            yield _Cell(content.as_buffer() if content.is_valid else None, path, label)
            number += 1


def _find_columns(file: Path, schema: Any, *, multilabel: bool) -> _Columns:
    require_names(file, schema)
    listed = {name: listed_feature(entry) for name, entry in features_of(file, schema).items()}
    features = {name: entry for name, entry in listed.items() if isinstance(entry, dict)}
    image = image_column(schema, features)
    label = find_label_column(file, schema, features, multilabel=multilabel)
    if image is None or label is None:
        raise DataError(
            f"{file}: expected one column of images (bytes, or a struct of bytes and path) and one "
            "of labels; called image and label if there are several. It has " + columns_text(schema)
        )
    return _Columns(image, label)


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
