"""Where a Parquet file's columns lie, read from its footer (parquet-format, parquet.thrift).

pyarrow tells the same, but ends the whole process over a footer whose parts do not fit together
(`metadata.row_group(i).column(j)` of pyarrow 26), where it should raise.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from vptkit.errors import DataError
from vptkit.regular_files import open_regular

from .thrift_compact import Compact

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["ColumnChunk", "RowGroup", "read_row_groups", "require_sane_footer"]

_MOST_FOOTER = 64 << 20


class ColumnChunk(NamedTuple):
    """A column in a row group.

    Attributes:
        path: its name, and of nested columns the names within, with dots between.
        begin, end: places of its pages in the file.
    """

    path: str
    begin: int
    end: int


class RowGroup(NamedTuple):
    """Some rows.

    Attributes:
        rows: how many.
        columns: of them.
    """

    rows: int
    columns: tuple[ColumnChunk, ...]


def require_sane_footer(file: Path) -> None:
    """Refuse a footer that would fill the memory.

    Raises:
        DataError: not a regular file, or a footer of more than 64 MiB.
    """
    with open_regular(file, DataError) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size < 8:
            return  # pyarrow says what is wrong
        stream.seek(size - 8)
        length = struct.unpack("<I", stream.read(4))[0]
    if length > _MOST_FOOTER:
        raise DataError(f"{file}: a footer of {length} bytes, expected at most {_MOST_FOOTER}")


def read_row_groups(file: Path, paths: Sequence[str]) -> list[RowGroup]:
    """The row groups of a Parquet file that pyarrow opens.

    Args:
        file: the file.
        paths: of its columns, in the order of its schema, which is how pyarrow finds their chunks.

    Raises:
        DataError: see `require_sane_footer`.
        ValueError: the footer is none, lacks what every one has, or names other columns.
    """
    require_sane_footer(file)
    with open_regular(file, DataError) as stream:
        size = os.fstat(stream.fileno()).st_size
        stream.seek(max(size - 8, 0))
        ending = stream.read(8)
        length = struct.unpack("<I", ending[:4])[0] if len(ending) == 8 else size
        if length > size - 8:
            raise ValueError("no footer in there")
        stream.seek(size - 8 - length)
        found = Compact(stream.read(length), "the footer").struct()
    groups = [_row_group(group) for group in _field(found, 4, list)]
    if any([chunk.path for chunk in group.columns] != [*paths] for group in groups):
        raise ValueError("its row groups have other columns than its schema")
    return groups


def _row_group(found: Any) -> RowGroup:
    columns = tuple(_chunk(_field(column, 3, dict)) for column in _field(found, 1, list))
    return RowGroup(_field(found, 3, int), columns)


def _chunk(found: Any) -> ColumnChunk:
    path = b".".join(_field(found, 3, list)).decode()
    begin, dictionary = _field(found, 9, int), found.get(11, 0)
    if isinstance(dictionary, int) and 0 < dictionary < begin:
        begin = dictionary
    return ColumnChunk(path, begin, begin + _field(found, 7, int))


def _field(found: Any, number: int, kind: type) -> Any:
    value = found.get(number) if isinstance(found, dict) else None
    if not isinstance(value, kind):
        raise ValueError(f"the footer has no field {number} where every one has it")  # noqa: TRY004
    return value
