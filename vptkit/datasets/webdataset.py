"""Labelled images in WebDataset shards: tar files whose members NAME.jpg and NAME.cls belong together.

Read with the standard library: an image is a place in its shard, opened at random. So compressed
shards are refused, and nothing is fetched from addresses. Of the format are read: keys, images of
Pillow's formats, labels in .cls (a number or a name), else in .json ({"label": ...}), and
classnames.txt beside the shards or their folders, one name a line. Where an image may have several
labels, the .json counts first, which may have a list of them ({"labels": [...]}, or "label").
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from vptkit.decoding.image_formats import IMAGE_SUFFIXES
from vptkit.errors import DataError
from vptkit.images.image_file import PackedImage
from vptkit.images.labelled_images import Listing, Row, require_label, split_of_file
from vptkit.regular_files import read_regular

from .tar_members import key_and_suffix, tar_members

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["CLASS_NAMES", "read_shards"]

CLASS_NAMES = "classnames.txt"
_MOST_NAMES = 16 << 20  # bytes of it
_LONGEST_TEXT = 1 << 20  # bytes of a .cls or .json


def read_shards(files: Sequence[Path], root: Path, *, multilabel: bool = False) -> Listing:
    """The images of some shards, in order.

    Args:
        files: the shards; their names or folders may tell the split.
        root: the folder that they lie in.
        multilabel: an image may have several labels.

    Raises:
        DataError: on the way through the rows: not a plain tar file, or a sample without image or label.
    """
    rows = (
        Row(split, label, image)
        for file in files
        for split in [split_of_file(file, root)]
        for label, image in _samples(file, multilabel=multilabel)
    )
    return Listing(root, rows, _class_names(root / CLASS_NAMES))


def _class_names(file: Path) -> list[str] | None:
    if not os.path.lexists(file):
        return None
    try:
        text = read_regular(file, DataError, limit=_MOST_NAMES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not a text in UTF-8: {error}") from error
    return [line.strip() for line in text.rstrip().splitlines()]


def _samples(file: Path, *, multilabel: bool) -> Iterator[tuple[object, PackedImage]]:
    """Label and image of each sample."""
    labels: dict[str, object] = {}
    images: dict[str, PackedImage] = {}
    first = ".json" if multilabel else ".cls"
    for key, suffix, member in _members(file):
        if isinstance(member, PackedImage):
            if key in images:
                raise DataError(
                    f"{file}: {key} has two images, {images[key].name} and {member.name}"
                )
            images[key] = member
        elif member is not None and (suffix == first or key not in labels):
            labels[key] = member
    for key in sorted(set(images) ^ set(labels)):
        lacks = "no label (.cls, or .json with label)" if key in images else "no image"
        raise DataError(f"{file}: the sample {key} has {lacks}")
    yield from ((labels[key], images[key]) for key in images)


def _members(file: Path) -> Iterator[tuple[str, str, object]]:
    """Key, suffix, and a PackedImage or a label, of what belongs to samples."""
    for member, stream in tar_members(file):
        key, suffix = key_and_suffix(member.name)
        if suffix in IMAGE_SUFFIXES:
            name = member.name.rpartition("/")[2]
            yield key, suffix, PackedImage(file, name, member.offset_data, member.size)
        elif suffix in (".cls", ".json"):
            yield key, suffix, _label(file, member, stream, suffix)


def _label(file: Path, member: tarfile.TarInfo, stream: BinaryIO, suffix: str) -> object:
    """What a .cls or .json says; None for a .json without "label" and "labels"."""
    if member.size > _LONGEST_TEXT:
        raise DataError(f"{file}: {member.name} has {member.size} bytes, which no label has")
    stream.seek(member.offset_data)
    try:
        text = stream.read(member.size).decode("utf-8").strip()
        label = _label_of(json.loads(text)) if suffix == ".json" else text
        for one in label if isinstance(label, list) else [label]:
            require_label(one, f"{file}: {member.name}")
        return [*map(_number, label)] if isinstance(label, list) else _number(label)
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{file}: {member.name} is broken: {error}") from error


def _label_of(document: dict[str, object]) -> object:
    label = document.get("label")
    return document.get("labels") if label is None else label


def _number(label: object) -> object:
    return int(label) if isinstance(label, str) and label.isdecimal() else label
