"""Labelled images of a COCO file: images, annotations and categories.

Boxes and masks are passed over: several of one category are one label. Several categories are several
labels, which only `--task multilabel` takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.errors import DataError
from vptkit.images.labelled_images import Row
from vptkit.regular_files import read_regular
from vptkit.strict_json import parse_json

from .listed_images import ListedImages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["read_coco", "read_coco_labels", "require_coco"]

_MOST_BYTES = 1 << 30


def read_coco(file: Path, split: str = "") -> Iterator[Row]:
    """The images of a COCO file, in its order; their paths are relative to it.

    Args:
        file: JSON.
        split: which split they are of.

    Raises:
        DataError: not such a file, or an image without a category, or with several.
    """
    for where, name, row in _rows(file, split):
        assert isinstance(row.label, tuple)  # noqa: S101 - of our own making
        yield row._replace(label=_only_label(f"{where} ({name})", set(row.label)))


def read_coco_labels(file: Path, split: str = "") -> Iterator[Row]:
    """The same with all labels of an image, a tuple: none, one, or several.

    Args:
        file, split: of `read_coco`.

    Raises:
        DataError: not such a file.
    """
    for _, _, row in _rows(file, split):
        yield row


def require_coco(document: dict[str, Any], file: Path) -> None:
    """Say what to do with a JSON of {file: [labels]}, which has several labels an image.

    Raises:
        DataError: it is such.
    """
    if document and all(isinstance(value, list) for value in document.values()):
        first = next(iter(document.values()))
        if not first or isinstance(first[0], str | int):
            raise DataError(
                f"{file}: lists of labels, {{file: [labels]}}: an image may have several. Pass --task "
                "multilabel"
            )


def _rows(file: Path, split: str) -> Iterator[tuple[str, str, Row]]:
    """(Where, name, row with its labels as a tuple) of each image."""
    document = parse_json(read_regular(file, DataError, limit=_MOST_BYTES), file, DataError)
    require_coco(document, file)
    images, annotations, categories = (
        _entries(file, document, key, fields)
        for key, fields in (
            ("images", ("id", "file_name")),
            ("annotations", ("image_id", "category_id")),
            ("categories", ("id", "name")),
        )
    )
    names = {one["id"]: str(one["name"]) for one in categories}
    labels: dict[Any, set[str]] = {}
    for one in annotations:
        if one["category_id"] not in names:
            raise DataError(f"{file}: no category has the id {one['category_id']!r}")
        labels.setdefault(one["image_id"], set()).add(names[one["category_id"]])
    found = ListedImages(file)
    for number, one in enumerate(images):
        where = f"{file}: images[{number}]"
        name = str(one["file_name"])
        image = found.find(where, name, f"images[{number}]")
        yield where, name, Row(split, tuple(sorted(labels.get(one["id"], ()))), image)


def _only_label(where: str, labels: set[str]) -> str:
    if len(labels) == 1:
        return next(iter(labels))
    if not labels:
        raise DataError(f"{where}: no annotation gives it a category; take it out, or label it")
    raise DataError(
        f"{where}: {len(labels)} categories, {', '.join(sorted(labels)[:4])}; several labels an image "
        "need --task multilabel"
    )


def _entries(
    file: Path, document: dict[str, Any], key: str, fields: tuple[str, ...]
) -> list[dict[str, Any]]:
    entries = document.get(key)
    if not isinstance(entries, list):
        raise DataError(
            f"{file}: not a COCO file: {key} is not a list. Expected images, annotations, categories"
        )
    for number, entry in enumerate(entries):
        there = isinstance(entry, dict) and all(
            isinstance(entry.get(field), int | str) for field in fields
        )
        if not there:
            raise DataError(f"{file}: {key}[{number}] has no {' and '.join(fields)}")
    return entries
