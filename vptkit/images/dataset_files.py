"""Data sets that are not folders of image files: a CSV, or archives such as WebDataset's shards."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.errors import DataError

from .csv_dataset import read_csv
from .image_file import image_files
from .labelled_images import split_of_name
from .webdataset import read_shards

if TYPE_CHECKING:
    from .labelled_images import Splits

__all__ = ["ARCHIVES", "Reader", "read_data_files"]

Reader = Callable[[Sequence[Path], Path], "Splits"]  # files, the folder they lie in → images
ARCHIVES: Mapping[str, Reader] = {".tar": read_shards}


def read_data_files(data: Path, archives: Mapping[str, Reader] = ARCHIVES) -> Splits | None:
    """The labelled images of a data set, or None for a folder of image files, or nothing.

    Args:
        data: a CSV file (`vptkit.images.csv_dataset`), an archive, or a folder of archives: directly in
            there, in data/, or in folders that are called after splits.
        archives: suffix → reader of such files.

    Raises:
        DataError: a file of another kind, or one that is broken; a folder of files that only
            `vptkit tune` reads.
    """
    if data.is_file():
        return _read_file(data, archives)
    if not data.is_dir():
        return None
    for suffix in dict.fromkeys((*archives, ".parquet")):  # a board has no pyarrow
        files = _files(data, suffix)
        if not files or _has_image_folders(data):
            continue
        if suffix in archives:
            return archives[suffix](files, data)
        raise DataError(
            f"{files[0]}: only vptkit tune reads {suffix} files; expected folders of images, a CSV "
            f"file, or files that end in {', '.join(archives)}"
        )
    return None


def _read_file(file: Path, archives: Mapping[str, Reader]) -> Splits:
    suffix = file.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return read_csv(file)
    if suffix in archives:
        return archives[suffix]([file], file.parent)
    raise DataError(
        f"{file}: not a data set that is read here: expected a folder, or a file that ends in "
        ".csv, .tsv, " + ", ".join(archives)
    )


def _files(data: Path, suffix: str) -> list[Path]:
    """Archives where they usually lie, sorted."""
    folders = [
        path
        for path in data.iterdir()
        if path.is_dir() and (path.name == "data" or split_of_name(path.name))
    ]
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
    folders = (p for p in data.iterdir() if p.is_dir() and not p.name.startswith("."))
    return len(list(itertools.islice(filter(image_files, folders), 2))) == 2
