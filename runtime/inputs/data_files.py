"""Files that hold or name many images: lists, tar files, tables; here or in a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vptkit.errors import DataError, VptkitError
from vptkit.runtime.stores.local_files import fetch_ahead, forget_copy, on_this_machine
from vptkit.runtime.stores.store_address import shown_address, suffix_of

from .lookup import NotFetchedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from vptkit.images.image_file import ImageFile

    from .lookup import Lookup

__all__ = ["ARCHIVES", "DATA_SUFFIXES", "LISTS", "walk_data_files"]

LISTS = frozenset({".csv", ".tsv", ".json", ".jsonl", ".ndjson"})
ARCHIVES = frozenset({".tar", ".parquet"})
DATA_SUFFIXES = LISTS | ARCHIVES


def walk_data_files(
    files: Iterable[Path | str], lookup: Lookup, *, alone: bool = False
) -> Iterator[ImageFile]:
    """The images of some files in turn; the next one that a store holds is fetched meanwhile.

    Args:
        files: paths and addresses in stores that end in one of `DATA_SUFFIXES`.
        lookup: how, and where it is said that one of several is broken.
        alone: the user named it: a fault is raised.

    Raises:
        DataError: it is broken, or names images where it must not.
        NotFetchedError: it would have to be fetched, and must not be.
    """
    waiting = iter(files)
    file = next(waiting, None)
    if file is not None:
        forget_copy(file)
    while file is not None:
        following = next(waiting, None)
        if isinstance(file, str) and not lookup.fetch:
            raise NotFetchedError(f"{shown_address(file)}: is not fetched for this")
        try:
            if following is not None and suffix_of(file) in ARCHIVES:
                on_this_machine(file)
                fetch_ahead(following)
            yield from _walk(file, lookup)
        except DataError as error:
            if alone:
                raise
            lookup.broken.append(str(error))
        file = following


def _walk(file: Path | str, lookup: Lookup) -> Iterator[ImageFile]:
    suffix = suffix_of(file)
    count = 0
    for image in _walker(suffix, file, lookup):
        count += 1
        yield image
    if not count:
        raise DataError(f"{shown_address(file)}: no images in there")


def _walker(suffix: str, file: Path | str, lookup: Lookup) -> Iterator[ImageFile]:
    if suffix in LISTS:
        from .image_lists import walk_list

        return walk_list(file, lookup)
    if suffix == ".tar":
        from .tar_images import walk_tar

        return walk_tar(file, lookup)
    if suffix == ".parquet":
        from .row_images import walk_rows

        return walk_rows(file, lookup)
    raise VptkitError(f"{shown_address(file)}: no list and no archive")
