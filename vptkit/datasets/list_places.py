"""Where lists of labelled images lie in a folder, as Hugging Face and Roboflow write them.

`metadata.csv` or `metadata.jsonl` of an imagefolder (columns file_name and label), `_classes.csv` (a column of
0 and 1 for each class), `_annotations.coco.json`: in the folder, or one in each split.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vptkit.images.image_file import folders_in
from vptkit.images.split_names import split_of_name

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["COCO", "LABELS", "ONE_HOT", "lists_in", "split_of_list"]

COCO, ONE_HOT = "_annotations.coco.json", "_classes.csv"
LABELS = "labels.json"  # {file: [labels]}, where an image may have several
_NAMES = ("metadata.csv", "metadata.jsonl", ONE_HOT, COCO)


def lists_in(data: Path, *, multilabel: bool = False) -> list[Path]:
    """The lists of a folder, all of one kind: in itself, else in its splits; none, if there is none.

    Args:
        data: the folder.
        multilabel: an image may have several labels: `labels.json` is a list, too.

    Raises:
        DataError: the folder cannot be read.
    """
    splits = [folder for folder in folders_in(data) if split_of_name(folder.name)]
    for name in (*_NAMES, *([LABELS] if multilabel else [])):
        for places in ([data], splits):
            if found := [place / name for place in places if os.path.lexists(place / name)]:
                return found
    return []


def split_of_list(data: Path, file: Path) -> str:
    """The split of a list's images, "" where its place says nothing."""
    return "" if file.parent == data else split_of_name(file.parent.name) or ""
