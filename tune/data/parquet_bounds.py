"""What a Parquet file would become in memory, found out before anything is unpacked.

A page says how large it is when it is unpacked, and pyarrow makes room for that: a file of some kB can
ask for gigabytes (zstd packs zeros by 10,000). The footer says it too, but may lie, so the header of
each page is read. They are structs of Thrift's compact protocol (parquet-format, parquet.thrift).
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from vptkit.errors import DataError
from vptkit.regular_files import open_regular

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

__all__ = ["most_bytes", "require_sane_footer", "rows_at_once"]

_MOST_FOOTER = 64 << 20
_MOST_ROWS = 20_000_000
_MOST_PAGE = 1 << 30
_ROWS = 64  # at once, where nothing speaks against it
_ROOM = 1 << 30  # bytes that they may take
_DICTIONARY = 2
_FIRST = 1 << 20
_HEADER = 1 << 16  # bytes of a page's header that are looked at; they hold statistics, too
_DEPTH = 8


def most_bytes(file: Path) -> int:
    """How many bytes its images may have in all: images hardly get smaller when they are packed."""
    return (1 << 30) + 100 * file.stat().st_size


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


def rows_at_once(file: Path, metadata: Any, columns: Collection[str]) -> int:
    """How many rows may be unpacked at once: 64, or fewer where pages are large.

    Args:
        file: the Parquet file.
        metadata: its footer, pyarrow's FileMetaData.
        columns: names of the columns that will be read.

    Raises:
        DataError: more rows than a file of this size has, a page that is too large, or all of them.
    """
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    groups = [group for group in groups if group.num_rows != 0]  # those have no pages
    rows = sum(group.num_rows for group in groups)
    size = file.stat().st_size
    if min((g.num_rows for g in groups), default=0) < 0 or rows > min(size, _MOST_ROWS):
        raise DataError(f"{file}: {rows} rows in {size} bytes, which no such file has")
    whole, sizes, values = 0, _Sizes(), Counter[str]()
    with open_regular(file, DataError) as stream:
        for group in groups:
            for chunk in map(group.column, range(group.num_columns)):
                if chunk.path_in_schema.partition(".")[0] not in columns:
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
                values[chunk.path_in_schema] += sum(
                    max(p.values, 0) for p in pages if p.kind != _DICTIONARY
                )
                if values[chunk.path_in_schema] > _MOST_ROWS:
                    raise DataError(
                        f"{file}: more than {_MOST_ROWS:,} values of {chunk.path_in_schema}"
                    )
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


def _pages(stream: BinaryIO, chunk: Any) -> Iterator[_Page]:
    """The pages of a column in a row group."""
    place = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < place:
        place = chunk.dictionary_page_offset
    end = place + chunk.total_compressed_size
    while 0 <= place < end:
        stream.seek(place)
        header = _Compact(stream.read(min(_HEADER, end - place)))
        fields = header.fields()
        kind, unpacked, packed = (fields.get(i, -1) for i in (1, 2, 3))
        if unpacked < 0 or packed < 0:
            raise ValueError("the header of a page does not say how large it is")
        # The count is the first field of the header for pages of its kind.
        values = next((fields[i] for i in (_FIRST + 5, _FIRST + 7, _FIRST + 8) if i in fields), 0)
        yield _Page(kind, unpacked, packed, values)
        place += header.place + packed


class _Compact:
    """Thrift's compact protocol, as far as it takes to know where a struct ends."""

    def __init__(self, content: bytes) -> None:
        self._content, self.place = content, 0

    def fields(self, depth: int = 0) -> dict[int, int]:
        """Read a struct; its whole numbers by the numbers of their fields.

        The first field of a struct in the field n, if that is a whole number, is _FIRST + n.

        Raises:
            ValueError: it does not end, or is too deep.
        """
        if depth > _DEPTH:
            raise ValueError("the header of a page is nested too deeply")
        found: dict[int, int] = {}
        number = 0
        while (byte := self._byte()) != 0:
            number = number + (byte >> 4) if byte >> 4 else self._zigzag()
            if byte & 15 in (4, 5, 6):
                found[number] = self._zigzag()
            elif byte & 15 == 12:
                inner = self.fields(depth + 1)
                found |= {_FIRST + number: inner[1]} if 1 in inner else {}
            else:
                self._skip(byte & 15)
        return found

    def _skip(self, kind: int) -> None:
        if kind in (1, 2):  # true and false stand in the field's own byte
            return
        if kind in (3, 7):
            self.place += 1 if kind == 3 else 8
        elif kind in (4, 5, 6):
            self._varint()
        elif kind == 8:
            length = self._varint()  # first: it moves the place itself
            self.place += length
        else:
            raise ValueError("the header of a page holds what none has")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("the header of a page holds a number without an end")

    def _byte(self) -> int:
        if self.place >= len(self._content):
            raise ValueError("the header of a page does not end")
        self.place += 1
        return self._content[self.place - 1]
