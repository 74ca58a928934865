"""Data sets that are not folders of class folders: tables, COCO, archives such as WebDataset's shards."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vptkit.errors import DataError
from vptkit.images.image_file import folders_in, image_files
from vptkit.images.labelled_images import Row, group_rows, images_of, split_of_name
from vptkit.regular_files import is_file, is_folder

from .coco_dataset import read_coco
from .dataset_bounds import require_inside
from .list_places import COCO, ONE_HOT, lists_in, split_of_list
from .table_dataset import has_labels, read_table, table_rows
from .webdataset import CLASS_NAMES, read_shards

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vptkit.images.labelled_images import Listing, Splits

__all__ = ["ARCHIVES", "TABLES", "Reader", "read_archives", "read_data_files"]


class Reader(Protocol):
    """Reads archives of one kind."""

    def __call__(self, files: Sequence[Path], root: Path, *, multilabel: bool = False) -> Listing:
        """The images of files that lie in the folder `root`; each may have several labels, or one."""


ARCHIVES: Mapping[str, Reader] = {".tar": read_shards}
TABLES = (".csv", ".tsv", ".jsonl")


def read_data_files(
    data: Path,
    archives: Mapping[str, Reader] = ARCHIVES,
    *,
    allow_outside: bool = False,
    columns: Mapping[str, str] | None = None,
) -> Splits | None:
    """The labelled images of a data set, or None for a folder of image files, or nothing.

    Args:
        data: a table (`vptkit.datasets.table_dataset`), a COCO file (`coco_dataset`), an archive; or a
            folder of archives: directly in there, in data/, or in folders that are called after splits;
            or one with lists as others call them (`list_places`).
        archives: suffix → reader of such files.
        allow_outside: of `vptkit.datasets.dataset_bounds.require_inside`.
        columns: of `vptkit.datasets.table_columns.parse_columns`.

    Raises:
        DataError: a file of another kind, or one that is broken; a folder of files that only
            `vptkit tune` reads; files that lie outside of the data set.
    """
    found = None
    if is_file(data):
        found = _read_file(data, archives, columns or {}, allow_outside=allow_outside)
    elif is_folder(data):
        found = _read_lists(data, columns or {}, allow_outside=allow_outside)
        listing = None if found else read_archives(data, archives, allow_outside=allow_outside)
        found = found if listing is None else group_rows(*listing)
    if found is not None:
        require_inside(data, images_of(found), allow_outside=allow_outside)
    return found


def read_archives(
    data: Path,
    archives: Mapping[str, Reader] = ARCHIVES,
    *,
    allow_outside: bool = False,
    multilabel: bool = False,
) -> Listing | None:
    """The images of an archive, or of the archives in a folder; None if there is none.

    Args:
        data, archives, allow_outside: of `read_data_files`.
        multilabel: an image may have several labels.

    Raises:
        DataError: an archive that is broken, or that only `vptkit tune` reads.
    """
    if is_file(data):
        if (suffix := data.suffix.lower()) not in archives:
            return None
        require_inside(data, _class_names(data.parent), allow_outside=allow_outside)
        return archives[suffix]([data], data.parent, multilabel=multilabel)
    for suffix in dict.fromkeys((*archives, ".parquet")):  # a board has no pyarrow
        files = _files(data, suffix)
        if not files or _has_image_folders(data):
            continue
        if suffix in archives:
            require_inside(data, [*files, *_class_names(data)], allow_outside=allow_outside)
            return archives[suffix](files, data, multilabel=multilabel)
        raise DataError(
            f"{files[0]}: only vptkit tune reads {suffix} files; expected folders of images, a CSV "
            f"file, or files that end in {', '.join(archives)}"
        )
    return None


def _read_lists(data: Path, columns: Mapping[str, str], *, allow_outside: bool) -> Splits | None:
    """A folder whose images a list in it names, or one in each split; None if there is none.

    A list without labels beside class folders is about something else, as captions.
    """
    lists = lists_in(data)
    if not lists:
        return None
    require_inside(data, lists, allow_outside=allow_outside)
    tables = [file for file in lists if file.name not in (COCO, ONE_HOT)]
    if not all(has_labels(file, columns) for file in tables) and _has_image_folders(data):
        return None
    rows = [row for file in lists for row in _rows_of_list(data, file, columns)]
    by_folder = [row._replace(split=row.split or _split_in_path(data, row)) for row in rows]
    # all or none: a single folder may be called test and be no split
    return group_rows(data, by_folder if all(row.split for row in by_folder) else rows)


def _rows_of_list(data: Path, file: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    split = split_of_list(data, file)
    return read_coco(file, split) if file.name == COCO else table_rows(file, columns, split)


def _split_in_path(data: Path, row: Row) -> str:
    """The split that the first folder of an image's path is called after, as in train/0.jpg."""
    parts = row.image.relative_to(data).parts if isinstance(row.image, Path) else ()
    return (split_of_name(parts[0]) or "") if len(parts) > 1 else ""


def _read_file(
    file: Path, archives: Mapping[str, Reader], columns: Mapping[str, str], *, allow_outside: bool
) -> Splits:
    suffix = file.suffix.lower()
    if suffix in TABLES:
        return read_table(file, columns)
    if suffix == ".json":
        return group_rows(file, read_coco(file))
    if listing := read_archives(file, archives, allow_outside=allow_outside):
        return group_rows(*listing)
    raise DataError(
        f"{file}: not a data set that is read here: expected a folder, or a file that ends in "
        f"{', '.join((*TABLES, '.json', *archives))}"
    )


def _class_names(folder: Path) -> list[Path]:
    file = folder / CLASS_NAMES
    return [file] if os.path.lexists(file) else []


def _files(data: Path, suffix: str) -> list[Path]:
    """Archives where they usually lie, sorted."""
    folders = [path for path in folders_in(data) if path.name == "data" or split_of_name(path.name)]
    return sorted(
        file
        for place in (data, *folders)
        for file in place.glob(f"*{suffix}")
        if not file.name.startswith(".")
    )


def _has_image_folders(data: Path) -> bool:
    """Whether images lie in two folders, classes or splits: then archives are not the data.

    One folder of images beside archives is their illustrations.
    """
    return len(list(itertools.islice(filter(image_files, folders_in(data)), 2))) == 2
