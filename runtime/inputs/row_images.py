"""Images in the rows of Parquet files and of data sets that Hugging Face saved; labels are not needed.

A row is read when it is wanted, and nearly always in order: a file is unpacked a few rows at a time, and
what was unpacked and not taken yet is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.arrow_files.saved_folders import saved_tables
from vptkit.datasets.dataset_bounds import inside_of
from vptkit.errors import DataError
from vptkit.images.image_file import MAX_BYTES, encoded
from vptkit.runtime.stores.store_address import shown_address

from .image_tables import forget_table, opened_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .lookup import Lookup

__all__ = ["RowImage", "walk_rows", "walk_saved"]


@dataclass(frozen=True, slots=True)
class RowImage:
    """An image in a row of a table.

    Attributes:
        file: a Parquet or Arrow file, or its address in a store.
        row: from 0.
        column: that holds the images, as the user said; None: the only one that can.
        allow_outside: a row may name a file anywhere instead of holding its bytes.
    """

    file: Path | str
    row: int
    column: str | None = None
    allow_outside: bool = False

    def __str__(self) -> str:
        return f"{shown_address(self.file)}: {self.name}"

    @property
    def name(self) -> str:
        """As "row 12"."""
        return f"row {self.row}"

    def read_bytes(self) -> bytes:
        """The encoded image.

        Raises:
            DataError: the row has none, or the file cannot be read.
            MissingExtraError: pyarrow is not installed.
        """
        content, path = opened_table(self.file, self.column).take(self.row)
        if content is None and path:
            return self._beside(path)
        if content is None:
            raise DataError(f"{self}: no image")
        if content.size > MAX_BYTES:
            raise DataError(f"{self}: more than {MAX_BYTES} bytes, which no image has")
        return bytes(content.to_pybytes())

    def _beside(self, path: str) -> bytes:
        """An image that the table only points to."""
        if not isinstance(self.file, Path):
            raise DataError(f"{self}: holds no bytes of {path}")
        inside = inside_of(self.file, allow_outside=self.allow_outside)
        try:
            return encoded(self.file.parent / path, inside=inside)
        except DataError as error:
            raise DataError(f"{self}: holds no bytes: {error}") from error


def walk_rows(file: Path | str, lookup: Lookup) -> Iterator[RowImage]:
    """The images of a Parquet file, one for each row.

    Args:
        file: the file, or its address in a store.
        lookup: which column is meant.

    Raises:
        DataError: it is no Parquet file, has no column of images, or would fill the memory.
        MissingExtraError: pyarrow is not installed.
    """
    column = lookup.columns.get("image")
    if isinstance(file, str):
        forget_table(file)
    for row in range(opened_table(file, column).rows):
        yield RowImage(file, row, column, lookup.allow_outside)


def walk_saved(folder: Path, lookup: Lookup) -> Iterator[RowImage]:
    """The images of a data set that `save_to_disk` wrote, split by split.

    Args:
        folder: see `vptkit.arrow_files.saved_folders.is_saved`.
        lookup: which column is meant, and whether its tables may lie elsewhere.

    Raises:
        DataError: it is none, or a table is broken.
        MissingExtraError: pyarrow is not installed.
    """
    for _, file in saved_tables(folder, allow_outside=lookup.allow_outside, any_split=True):
        yield from walk_rows(file, lookup)
