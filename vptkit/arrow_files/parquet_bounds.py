"""What a Parquet file would become in memory, found out before anything is unpacked.

A page says how large it is when it is unpacked, and pyarrow makes room for that: a file of some kB can
ask for gigabytes (zstd packs zeros by 10,000). The footer says it too, but may lie, so the header of
each page is read. They are structs of Thrift's compact protocol (parquet-format, parquet.thrift).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from vptkit.errors import DataError
from vptkit.regular_files import open_regular

from .thrift_compact import Compact

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from .parquet_footer import ColumnChunk, RowGroup

__all__ = ["most_bytes", "rows_at_once"]

_MOST_ROWS = 20_000_000
_MOST_PAGE = 1 << 30
_ROWS = 64  # at once, where nothing speaks against it
_ROOM = 1 << 30  # bytes that they may take
_DICTIONARY = 2
_HEADER = 1 << 16  # bytes of a page's header that are looked at; they hold statistics, too


def most_bytes(file: Path) -> int:
    """How many bytes its images may have in all: images hardly get smaller when they are packed."""
    return (1 << 30) + 100 * file.stat().st_size


def rows_at_once(file: Path, groups: Iterable[RowGroup], columns: Collection[str]) -> int:
    """How many rows may be unpacked at once: 64, or fewer where pages are large.

    Args:
        file: the Parquet file.
        groups: of `parquet_footer.read_row_groups`.
        columns: names of the columns that will be read.

    Raises:
        DataError: more rows than a file of this size has, a page that is too large, or all of them.
    """
    groups = [group for group in groups if group.rows != 0]  # those have no pages
    rows = sum(group.rows for group in groups)
    size = file.stat().st_size
    if min((group.rows for group in groups), default=0) < 0 or rows > min(size, _MOST_ROWS):
        raise DataError(f"{file}: {rows} rows in {size} bytes, which no such file has")
    whole, sizes, values = 0, _Sizes(), Counter[str]()
    with open_regular(file, DataError) as stream:
        for group in groups:
            for chunk in group.columns:
                if chunk.path.partition(".")[0] not in columns:
                    continue
                pages = []
                for page in _pages(stream, chunk):
                    if max(page.unpacked, page.packed) > _MOST_PAGE:
                        raise DataError(
                            f"{file}: a page of {page.unpacked} bytes, expected at most {_MOST_PAGE}"
                        )
                    whole += page.unpacked
                    if whole > most_bytes(file):
                        raise DataError(
                            f"{file}: {size} bytes would be unpacked to {whole} or more"
                        )
                    pages.append(page)
                # A list may have any number of values, which take no room in the file.
                values[chunk.path] += sum(max(p.values, 0) for p in pages if p.kind != _DICTIONARY)
                if values[chunk.path] > _MOST_ROWS:
                    raise DataError(f"{file}: more than {_MOST_ROWS:,} values of {chunk.path}")
                sizes.add(pages)
    return sizes.rows()


class _Page(NamedTuple):
    """What the header of a page says.

    Attributes:
        kind: 0 or 3 of values, 2 of a dictionary.
        unpacked, packed: its bytes in memory, and in the file.
        values: how many.
    """

    kind: int
    unpacked: int
    packed: int
    values: int


class _Sizes:
    """The worst that a number of rows can be, of all columns."""

    def __init__(self) -> None:
        self._page, self._dictionary, self._fewest = 0, 0, _ROWS

    def add(self, pages: Sequence[_Page]) -> None:
        """Count the pages of a column in a row group; the last one is short of values in any case."""
        data = [page for page in pages if page.kind != _DICTIONARY]
        self._page = max(self._page, *(page.unpacked for page in data), 0)
        self._fewest = max(1, min(self._fewest, *(page.values for page in data[:-1]), _ROWS))
        found = (page.unpacked for page in pages if page.kind == _DICTIONARY)
        self._dictionary = max(self._dictionary, *found, 0)

    def rows(self) -> int:
        """So many that pages that they lie in, and what they take of dictionaries, fit."""
        for rows in (_ROWS, 8):
            pages = rows // self._fewest + 3
            if pages * self._page + rows * self._dictionary <= _ROOM:
                return rows
        return 1


def _pages(stream: BinaryIO, chunk: ColumnChunk) -> Iterator[_Page]:
    """The pages of a column in a row group."""
    place, end = chunk.begin, chunk.end
    while 0 <= place < end:
        stream.seek(place)
        header = Compact(stream.read(min(_HEADER, end - place)), "the header of a page")
        fields = header.struct()
        kind, unpacked, packed = (_whole(fields, i) for i in (1, 2, 3))
        if unpacked < 0 or packed < 0:
            raise ValueError("the header of a page does not say how large it is")
        # The count is the first field of the header for pages of its kind.
        values = max(_whole(fields.get(number), 1) for number in (5, 7, 8))
        yield _Page(kind, unpacked, packed, values)
        place += header.place + packed


def _whole(found: Any, number: int) -> int:
    """A whole number of a struct, -1 if it is not there."""
    value = found.get(number) if isinstance(found, dict) else None
    return value if isinstance(value, int) else -1
