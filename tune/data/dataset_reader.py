"""Which kind of data set lies at a path, and its labelled images by split and class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vptkit.arrow_files.saved_folders import is_saved
from vptkit.datasets.dataset_bounds import require_inside
from vptkit.datasets.dataset_files import ARCHIVES, read_archives, read_data_files
from vptkit.datasets.table_columns import parse_columns
from vptkit.errors import DataError
from vptkit.images.image_file import class_folders, folders_in
from vptkit.images.labelled_images import Splits, group_rows, images_of, split_folders
from vptkit.paths.path_advice import advised
from vptkit.regular_files import is_folder

from .arrow_dataset import read_parquet, read_saved

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vptkit.images.labelled_images import Listing

__all__ = ["read_label_archives", "read_splits"]

_ARCHIVES = {".parquet": read_parquet, **ARCHIVES}


def read_splits(data: Path, *, allow_outside: bool = False, columns: str | None = None) -> Splits:
    """The labelled images of a data set; "" is the split of those that have none.

    Args:
        data: folders of classes (perhaps in train/, val/, test/, ood/, or other names of
            `labelled_images.SPLIT_NAMES`), a CSV file, WebDataset shards or Parquet files (see
            `vptkit.datasets.dataset_files`), or a saved Hugging Face data set (`arrow_dataset`).
        allow_outside: of `vptkit.datasets.dataset_bounds.require_inside`.
        columns: of `vptkit.datasets.table_columns.parse_columns`.

    Raises:
        DataError: nothing of that kind, or broken; the message says which file or line. Or files
            that lie outside of the data set.
        MissingExtraError: pyarrow is not installed.
    """
    with advised(data, "data", DataError):
        return _read_splits(data, allow_outside=allow_outside, columns=parse_columns(columns))


def read_label_archives(data: Path, *, allow_outside: bool = False) -> Listing | None:
    """Images with several labels in archives or a saved Hugging Face data set; None if there is none.

    Args:
        data, allow_outside: of `read_splits`.

    Raises:
        DataError: broken, or files that lie outside of the data set.
        MissingExtraError: pyarrow is not installed.
    """
    if is_saved(data):
        return read_saved(data, allow_outside=allow_outside, multilabel=True)
    return read_archives(data, _ARCHIVES, allow_outside=allow_outside, multilabel=True)


def _read_splits(data: Path, *, allow_outside: bool, columns: Mapping[str, str]) -> Splits:
    if is_saved(data):
        saved = group_rows(*read_saved(data, allow_outside=allow_outside))
        require_inside(data, images_of(saved), allow_outside=allow_outside)
        return saved
    found = read_data_files(data, _ARCHIVES, allow_outside=allow_outside, columns=columns)
    if found is not None:
        return found
    if not is_folder(data):
        raise DataError(f"{data}: no such folder or file")
    found = _read_folders(data)
    require_inside(data, images_of(found), allow_outside=allow_outside)
    return found


def _read_folders(data: Path) -> Splits:
    folders = split_folders(data)
    alone = data / "train"
    if not folders and alone.is_dir() and folders_in(alone):
        folders = {"train": alone}
    if not folders:
        return {"": class_folders(data)}
    if "train" not in folders:
        raise DataError(f"{data}: has {', '.join(p.name for p in folders.values())} but no train/")
    # Whoever draws up the splits says what is odd about the others.
    return {
        name: class_folders(folder)
        if name == "train"
        else class_folders(folder, fewest=0, empty_ones=True)
        for name, folder in folders.items()
    }
