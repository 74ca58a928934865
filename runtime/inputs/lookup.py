"""What is asked of a look through sources, and what is found to be wrong on the way."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vptkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Lookup", "LostImage", "NotFetchedError"]


class NotFetchedError(DataError):
    """A file in a store that this look must not fetch."""


@dataclass(slots=True)
class Lookup:
    """One look through sources.

    Attributes:
        allow_outside: lists may name images outside of their folders, or in a store.
        columns: of `vptkit.datasets.table_columns.parse_columns`: which column is the image.
        fetch: archives and lists in stores may be fetched; where images are only counted they raise
            NotFetchedError.
        skipped: files that are no images, by kind; counted on the way.
        broken: why an archive or a list among others gave nothing, or ended before its end.
    """

    allow_outside: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    fetch: bool = True
    skipped: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LostImage:
    """An image that a list or a table names, and that cannot be had.

    Attributes:
        title: the row, as "list.csv: line 3".
        reason: what is the matter with it.
    """

    title: str
    reason: str

    def __str__(self) -> str:
        return self.title

    @property
    def name(self) -> str:
        """The row, without the list."""
        return self.title.rpartition(": ")[2]

    def read_bytes(self) -> bytes:
        """There are none.

        Raises:
            DataError: always.
        """
        raise DataError(f"{self.title}: {self.reason}")
