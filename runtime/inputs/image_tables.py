"""Tables with a column of images, open for whoever reads their rows: the last few, by file."""

from __future__ import annotations

import contextlib
import threading
from bisect import bisect_right
from collections import OrderedDict
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from vptkit.arrow_files.arrow_library import pyarrow, readable
from vptkit.arrow_files.image_column import (
    LONGEST_PATH,
    columns_text,
    contents,
    features_of,
    image_column,
    require_names,
)
from vptkit.arrow_files.parquet_bounds import rows_at_once
from vptkit.arrow_files.parquet_footer import read_row_groups, require_sane_footer
from vptkit.arrow_files.saved_folders import require_plain
from vptkit.errors import DataError
from vptkit.regular_files import require_regular
from vptkit.runtime.stores.local_files import on_this_machine
from vptkit.runtime.stores.store_address import suffix_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from vptkit.runtime.stores.local_files import LocalFile

    # The encoded image (pyarrow.Buffer, None: it lies at the path), and its path if any
    Cell = tuple[Any, str | None]

__all__ = ["ImageTable", "forget_table", "opened_table"]

_OPEN = 4
_BUFFER = 1 << 20  # bytes of a Parquet file that are read at once (docs/benchmarks.md)
_PORTION = 8 << 20  # bytes that are unpacked at once, if a row has no more
_ROOM = 256 << 20  # bytes of rows that are unpacked and not taken

_lock = threading.Lock()
_tables: OrderedDict[tuple[object, ...], ImageTable] = OrderedDict()


class ImageTable:
    """The column of images of one file.

    Attributes:
        rows: how many.
    """

    def __init__(
        self,
        file: LocalFile,
        groups: Sequence[int],
        batches: Callable[[int], Iterator[Any]],
    ) -> None:
        """Nothing is unpacked yet.

        Args:
            file: for messages, and held.
            groups: rows of each part that reading can begin at.
            batches: number of such a part → columns of images from there to the end, one after another.
        """
        self._file, self._batches = file, batches
        self._starts = [0, *accumulate(groups)]
        self.rows = self._starts.pop()
        self._lock = threading.Lock()
        self._ahead: OrderedDict[int, Cell] = OrderedDict()
        self._held = 0
        self._columns: Iterator[Any] = iter(())
        self._next = self.rows  # the row that the next column begins with

    def take(self, row: int) -> Cell:
        """What a row holds. It is forgotten then, and unpacked anew for whoever asks again.

        Raises:
            DataError: the file has no such row, or is broken.
        """
        with self._lock, self._file.errors(), readable(self._file.path):
            if row not in self._ahead:
                self._unpack(row)
            content, path = self._ahead.pop(row)
            self._held -= 0 if content is None else content.size
            return content, path

    def _unpack(self, row: int) -> None:
        """Go on until a row is there; from the part that it lies in, if that is nearer."""
        if not 0 <= row < self.rows:
            raise DataError(f"{self._file.path}: has no row {row} any more")
        part = bisect_right(self._starts, row) - 1
        if row < self._next or self._starts[part] > self._next:
            self._columns, self._next = self._batches(part), self._starts[part]
        while row >= self._next:
            column = next(self._columns, None)
            if column is None:
                raise DataError(f"{self._file.path}: ends before its row {row}")
            self._keep(column, row)
            self._next += len(column)

    def _keep(self, column: Any, wanted: int) -> None:
        # Offsets beyond the file would be followed: pyarrow checks them only if it is asked to.
        column.validate(full=True)
        images, paths = contents(column)
        for row, (image, path) in enumerate(zip(images, paths, strict=True), self._next):
            if path and len(path) > LONGEST_PATH:
                path = None  # noqa: PLW2901 -- no path is so long
            content = image.as_buffer() if image.is_valid else None
            self._ahead[row] = content, path
            self._held += 0 if content is None else content.size
        while self._held > _ROOM:
            oldest = next(iter(self._ahead))
            if oldest >= min(wanted, self._next):
                break
            content, _ = self._ahead.pop(oldest)
            self._held -= 0 if content is None else content.size


def opened_table(file: Path | str, column: str | None) -> ImageTable:
    """The open table of a file.

    Args:
        file: a Parquet or Arrow file, or its address in a store.
        column: that holds the images; None: the only one that can, or of several `image`.

    Raises:
        DataError: it is no such file, has no such column, or would fill the memory.
        MissingExtraError: pyarrow is not installed.
    """
    key = file, column, _stamp(file)
    with _lock:
        if key in _tables:
            _tables.move_to_end(key)
            return _tables[key]
    local = on_this_machine(file)
    with local.errors():
        table = (
            _opened_parquet(local, column)
            if suffix_of(file) == ".parquet"
            else _opened_arrow(local, column)
        )
    with _lock:
        table = _tables.setdefault(key, table)
        while len(_tables) > _OPEN:
            _tables.popitem(last=False)
    return table


def forget_table(file: Path | str) -> None:
    """See to it that an object is read as it is now; of a file here its time tells."""
    with _lock:
        for key in [key for key in _tables if key[0] == file]:
            del _tables[key]


def _stamp(file: Path | str) -> object:
    if isinstance(file, str):
        return None
    with contextlib.suppress(OSError, ValueError):  # whoever opens it says what is wrong
        found = file.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns
    return None


def _opened_parquet(local: LocalFile, asked: str | None) -> ImageTable:
    parquet, file = pyarrow().parquet, local.path
    require_sane_footer(file)
    with readable(file):
        # Newer pyarrow reads row groups ahead unless it is told not to, and keeps them all.
        table = parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
        column = _column(file, table.schema_arrow, asked)
        schema = table.metadata.schema
        groups = read_row_groups(file, [schema.column(i).path for i in range(len(schema))])
        rows = rows_at_once(file, groups, [column])
        sizes = [
            chunk.end - chunk.begin
            for group in groups
            for chunk in group.columns
            if chunk.path.partition(".")[0] == column
        ]
        each = sum(sizes) // max(sum(group.rows for group in groups), 1) + 1
        rows = max(1, min(rows, _PORTION // each))

    def batches(part: int) -> Iterator[Any]:
        parts = range(part, len(groups))
        found = table.iter_batches(rows, row_groups=parts, columns=[column])
        return (batch.column(column) for batch in found)

    return ImageTable(local, [group.rows for group in groups], batches)


def _opened_arrow(local: LocalFile, asked: str | None) -> ImageTable:
    arrow, file = pyarrow(), local.path
    require_regular(file, DataError)

    def stream() -> Any:
        return arrow.ipc.open_stream(arrow.memory_map(str(file)))

    with readable(file):
        require_plain(file, arrow.memory_map(str(file)))
        column = _column(file, stream().schema, asked)
        rows = sum(len(batch) for batch in stream())
    return ImageTable(local, [rows], lambda _: (batch.column(column) for batch in stream()))


def _column(file: Path, schema: Any, asked: str | None) -> str:
    require_names(file, schema)
    features = features_of(file, schema)
    if asked is None:
        found = image_column(schema, features)
        if found is not None:
            return found
        kinds = "one column of images (bytes, or a struct of bytes and path), called image if there are several"
        raise DataError(
            f"{file}: expected {kinds}; or say --columns image=NAME. It has {columns_text(schema)}"
        )
    if asked not in schema.names or image_column([schema.field(asked)], {}) is None:
        raise DataError(
            f"{file}: has no column of images {asked!r} (bytes, or a struct of bytes and path). It has "
            + columns_text(schema)
        )
    return asked
