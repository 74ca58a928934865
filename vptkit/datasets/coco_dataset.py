"""Labelled images of a COCO file: images, annotations and categories, one category an image.

Boxes and masks are passed over: several of one category are one label. Of several categories the image
would have several labels, which is refused.
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

__all__ = ["read_coco"]

_MOST_BYTES = 1 << 30


def read_coco(file: Path, split: str = "") -> Iterator[Row]:
    """The images of a COCO file, in its order; their paths are relative to it.

    Args:
        file: JSON.
        split: which split they are of.

    Raises:
        DataError: not such a file, or an image without a category, or with several.
    """
    document = parse_json(read_regular(file, DataError, limit=_MOST_BYTES), file, DataError)
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
        label = _only_label(f"{where} ({one['file_name']})", labels.get(one["id"], set()))
        yield Row(split, label, found.find(where, str(one["file_name"]), f"images[{number}]"))


def _only_label(where: str, labels: set[str]) -> str:
    if len(labels) == 1:
        return next(iter(labels))
    if not labels:
        raise DataError(f"{where}: no annotation gives it a category; take it out, or label it")
    raise DataError(
        f"{where}: {len(labels)} categories, {', '.join(sorted(labels)[:4])}; several labels an image "
        "(multilabel) are not read"
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
