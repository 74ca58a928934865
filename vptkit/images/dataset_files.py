"""Data sets that are not folders of image files: a CSV, or archives such as WebDataset's shards."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.errors import DataError
from vptkit.regular_files import is_file, is_folder

from .csv_dataset import read_csv
from .dataset_bounds import require_inside
from .image_file import folders_in, image_files
from .labelled_images import images_of, split_of_name
from .webdataset import CLASS_NAMES, read_shards

if TYPE_CHECKING:
    from .labelled_images import Splits

__all__ = ["ARCHIVES", "Reader", "read_data_files"]

Reader = Callable[[Sequence[Path], Path], "Splits"]  # files, the folder they lie in → images
ARCHIVES: Mapping[str, Reader] = {".tar": read_shards}


def read_data_files(
    data: Path, archives: Mapping[str, Reader] = ARCHIVES, *, allow_outside: bool = False
) -> Splits | None:
    """The labelled images of a data set, or None for a folder of image files, or nothing.

    Args:
        data: a CSV file (`vptkit.images.csv_dataset`), an archive, or a folder of archives: directly in
            there, in data/, or in folders that are called after splits.
        archives: suffix → reader of such files.
        allow_outside: of `vptkit.images.dataset_bounds.require_inside`.

    Raises:
        DataError: a file of another kind, or one that is broken; a folder of files that only
            `vptkit tune` reads; files that lie outside of the data set.
    """
    found = None
    if is_file(data):
        found = _read_file(data, archives, allow_outside=allow_outside)
    elif is_folder(data):
        found = _read_folder(data, archives, allow_outside=allow_outside)
    if found is not None:
        require_inside(data, images_of(found), allow_outside=allow_outside)
    return found


def _read_folder(
    data: Path, archives: Mapping[str, Reader], *, allow_outside: bool
) -> Splits | None:
    for suffix in dict.fromkeys((*archives, ".parquet")):  # a board has no pyarrow
        files = _files(data, suffix)
        if not files or _has_image_folders(data):
            continue
        if suffix in archives:
            require_inside(data, [*files, *_class_names(data)], allow_outside=allow_outside)
            return archives[suffix](files, data)
        raise DataError(
            f"{files[0]}: only vptkit tune reads {suffix} files; expected folders of images, a CSV "
            f"file, or files that end in {', '.join(archives)}"
        )
    return None


def _read_file(file: Path, archives: Mapping[str, Reader], *, allow_outside: bool) -> Splits:
    suffix = file.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return read_csv(file)
    if suffix in archives:
        require_inside(file, _class_names(file.parent), allow_outside=allow_outside)
        return archives[suffix]([file], file.parent)
    raise DataError(
        f"{file}: not a data set that is read here: expected a folder, or a file that ends in "
        ".csv, .tsv, " + ", ".join(archives)
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
