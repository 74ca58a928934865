"""What the user named on the command line → images, and what of it gave none.

Among good sources, one that gives nothing does not end the run: it is said, and the others go on.
No list is made of them: of a million images only the folder that is walked is in memory.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from vptkit.errors import DataError
from vptkit.regular_files import is_folder
from vptkit.runtime.inputs.data_files import DATA_SUFFIXES
from vptkit.runtime.inputs.image_sources import is_several, walk_source
from vptkit.runtime.inputs.lookup import Lookup, NotFetchedError
from vptkit.runtime.stores.store_address import suffix_of

from .seen_paths import SeenPaths

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Iterator, Mapping

    from vptkit.images.image_file import ImageFile

__all__ = ["STANDARD_INPUT", "NamedImages"]

STANDARD_INPUT = "-"
_MAX_BYTES = 64 << 20  # of names on standard input; a million long ones


class NamedImages:
    """What several sources give: images one by one, and what gave none as soon as it is known.

    Attributes:
        missing: why a source that was named itself gave none; a fault.
        broken: why a list or an archive gave none, or not all; a fault.
        empty: why a glob or a folder gave none; perhaps it is meant to be so.
    """

    def __init__(
        self,
        sources: Iterable[str],
        standard_input: BinaryIO | None = None,
        *,
        columns: Mapping[str, str] | None = None,
        allow_outside: bool = False,
    ) -> None:
        """Take sources as `vptkit.runtime.inputs.image_sources`, and for "-" the names on standard input.

        Args:
            sources: as the user typed them.
            standard_input: names of further sources, one a line, or ended by NUL (as of
                `find -print0`).
            columns, allow_outside: of `vptkit.runtime.inputs.lookup.Lookup`.

        Raises:
            DataError: standard input holds no names, or too many.
        """
        self.sources = tuple(_with_names(sources, standard_input))
        self.missing: list[str] = []
        self.broken: list[str] = []
        self.empty: list[str] = []
        self._lookup = Lookup(allow_outside=allow_outside, columns=columns or {})

    @property
    def skipped(self) -> Counter[str]:
        """Files of folders, globs and archives that are no images, by suffix."""
        return +self._lookup.skipped

    def count(self) -> int | None:
        """Look through all of the sources for their number; None where archives would be fetched for it.

        Raises:
            DataError: no source gives an image.
        """
        other = NamedImages(
            self.sources,
            columns=self._lookup.columns,
            allow_outside=self._lookup.allow_outside,
        )
        other._lookup.fetch = False
        try:
            return sum(1 for _ in other)
        except NotFetchedError:
            return None

    def __iter__(self) -> Iterator[ImageFile]:
        """Look them up: each image once, in the order of the sources.

        Raises:
            DataError: at the end, if no source gave an image.
        """
        count = 0
        alone = self.sources[0] if len(self.sources) == 1 else ""
        folder = bool(alone) and is_folder(Path(alone))
        with contextlib.closing(SeenPaths()) as seen:
            for source in self.sources:
                for path in self._walk(source):
                    if folder or seen.add(path):
                        count += 1
                        yield path
                    elif suffix_of(Path(alone)) in DATA_SUFFIXES:  # others may well overlap
                        self._lookup.skipped["named twice"] += 1
        if not count:
            faults = [*self.missing, *self.broken, *self.empty]
            faults = faults or ["no sources: name at least one image, folder or glob"]
            more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
            raise DataError("; ".join(faults[:3]) + more)

    def _walk(self, source: str) -> Iterator[ImageFile]:
        first = True
        try:
            for path in walk_source(source, self._lookup):
                first = False
                yield path
        except NotFetchedError:
            raise
        except DataError as error:
            if not first and is_folder(Path(source)):  # it went away while it was walked
                raise
            faults = self.missing if first and not os.path.lexists(source) else self.broken
            (self.empty if is_several(source) else faults).append(str(error))
        self.broken += self._lookup.broken
        self._lookup.broken.clear()


def _with_names(sources: Iterable[str], standard_input: BinaryIO | None) -> Iterator[str]:
    for source in sources:
        if source == STANDARD_INPUT:
            yield from _names(standard_input)
        else:
            yield source


def _names(stream: BinaryIO | None) -> list[str]:
    """One name a line; ended by NUL where there is one."""
    text = b"" if stream is None else stream.read(_MAX_BYTES + 1)
    if len(text) > _MAX_BYTES:
        raise DataError(f"-: more than {_MAX_BYTES} bytes of names on standard input")
    lines = text.split(b"\0") if b"\0" in text else text.splitlines()
    names = [os.fsdecode(line) for line in lines if line.strip()]
    if not names:
        raise DataError("-: no names on standard input: expected one a line, as ls and find print")
    return names
