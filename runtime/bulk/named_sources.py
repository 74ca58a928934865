"""What the user named on the command line → images, and what of it gave none.

Among good sources, one that gives nothing does not end the run: it is said, and the others go on.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from vptkit.errors import DataError
from vptkit.regular_files import is_folder
from vptkit.runtime.session.image_sources import listing_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["STANDARD_INPUT", "NamedImages", "name_images"]

STANDARD_INPUT = "-"
_MAX_BYTES = 64 << 20  # of names on standard input; a million long ones


class NamedImages(NamedTuple):
    """What several sources gave.

    Attributes:
        images: each once, in the order of the sources.
        missing: why a source that was named itself gave none; a fault.
        empty: why a glob or a folder gave none; perhaps it is meant to be so.
        skipped: files of folders and globs that are no images, by suffix.
    """

    images: list[Path]
    missing: list[str]
    empty: list[str]
    skipped: Counter[str]


def name_images(sources: Iterable[str], standard_input: BinaryIO | None = None) -> NamedImages:
    """Look up files, folders and globs, and the names on standard input for "-".

    Args:
        sources: as the user typed them.
        standard_input: names of further sources, one a line, or ended by NUL (as of `find -print0`).

    Raises:
        DataError: no source gives an image.
    """
    images: dict[Path, None] = {}
    missing: list[str] = []
    empty: list[str] = []
    skipped: Counter[str] = Counter()
    for source in _with_names(sources, standard_input):
        try:
            found = listing_of(source)
        except DataError as error:  # noqa: PERF203 -- a few sources
            several = is_folder(Path(source)) or glob.has_magic(source)
            (empty if several else missing).append(str(error))
        else:
            images.update(dict.fromkeys(found.images))
            skipped += found.skipped
    if not images:
        faults = [*missing, *empty] or ["no sources: name at least one image, folder or glob"]
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise DataError("; ".join(faults[:3]) + more)
    return NamedImages(list(images), missing, empty, skipped)


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
