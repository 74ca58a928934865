"""Labelled images by split and class, whatever lists them: folders, a CSV, archives."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from vptkit.errors import DataError

from .image_file import folders_in, is_utf8, spelled
from .split_names import SPLIT_NAMES, split_of_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .image_file import ImageFile

__all__ = [
    "SPLIT_NAMES",
    "Classes",
    "Listing",
    "Row",
    "Splits",
    "group_rows",
    "images_of",
    "named_label",
    "require_label",
    "spelled_names",
    "split_folders",
    "split_of_file",
    "split_of_name",
]

Classes = Mapping[str, Sequence["ImageFile"]]  # class name → its images, classes in order
Splits = Mapping[str, Classes]  # train, val, test, ood → classes; "" where nothing names a split

_LONGEST_LABEL = 1000


class Row(NamedTuple):
    """One labelled image.

    Attributes:
        split: train, val, test, ood, or "" if nothing says.
        label: the class's name, or its number; `group_rows` refuses what is neither. Where an image may
            have several labels: a tuple of such, or a list as a file has it.
        image: where its bytes are.
    """

    split: str
    label: object
    image: ImageFile


class Listing(NamedTuple):
    """Labelled images as archives have them.

    Attributes:
        place: what was read, for messages.
        rows: the images; to be gone through once.
        names: of the classes, for labels that are numbers; None if there are none.
    """

    place: Path
    rows: Iterable[Row]
    names: Sequence[str] | None = None


def images_of(splits: Splits) -> Iterator[ImageFile]:
    """All images of a data set."""
    for classes in splits.values():
        for images in classes.values():
            yield from images


def split_folders(data: Path) -> dict[str, Path]:
    """The folders that are called after splits, as train/, valid/ and Test/.

    Of several names for a split the first in SPLIT_NAMES counts. None where only one folder is
    called so: that may as well be a class.
    """
    names = {path.name.lower(): path for path in folders_in(data)}
    found = {
        split: next(names[alias] for alias in aliases if alias in names)
        for split, aliases in SPLIT_NAMES.items()
        if not names.keys().isdisjoint(aliases)
    }
    return found if len(found) > 1 else {}


def split_of_file(file: Path, root: Path) -> str:
    """The split that a file's name or its folders below `root` tell, or "".

    As Hugging Face reads them: train-00000-of-00002.parquet, train/0.tar, birds-val_3.tar.

    Raises:
        DataError: the name tells two splits.
    """
    words = re.split(r"[^a-z]+", file.relative_to(root).as_posix().lower())
    found = {split for word in words if (split := split_of_name(word))}
    if len(found) > 1:
        raise DataError(f"{file}: the name tells two splits, {' and '.join(sorted(found))}")
    return found.pop() if found else ""


def group_rows(place: Path, rows: Iterable[Row], names: Sequence[str] | None = None) -> Splits:
    """Rows by split and class; images keep their order within a class.

    Classes stand in the order of `names`, else by number, else by alphabet as folders do; their names
    are `image_file.spelled`.

    Args:
        place: what was read, for messages.
        rows: the images.
        names: of the classes, for labels that are numbers.

    Raises:
        DataError: no images, a label that is neither a number nor a name, a number without a
            name, a name that is unknown or of two classes, labels that are partly numbers and
            partly names, or images of which only some have a split.
    """
    names = spelled_names(place, names)
    found: dict[str, dict[str | int, list[ImageFile]]] = {}
    for split, label, image in rows:
        found.setdefault(split, {}).setdefault(named_label(label, names, image), []).append(image)
    if not found:
        raise DataError(f"{place}: no images in there")
    if "" in found and len(found) > 1:
        image = next(iter(found[""].values()))[0]
        raise DataError(
            f"{image}: nothing says which split this is of, though other images have one"
            f" ({', '.join(sorted(set(found) - {''}))})"
        )
    labels = {label for classes in found.values() for label in classes}
    kinds = {type(label) for label in labels}
    if len(kinds) > 1:
        raise DataError(
            f"{place}: some labels are numbers, some are names, as "
            f"{', '.join(sorted(map(repr, labels))[:4])}; expected one or the other"
        )
    order = list(names) if names is not None else sorted(labels)
    return {
        split: {str(label): classes[label] for label in order if label in classes}
        for split, classes in found.items()
    }


def spelled_names(place: object, names: Sequence[str] | None) -> list[str] | None:
    """Names of classes as `image_file.spelled` has them, for labels that are numbers.

    Raises:
        DataError: a name that is none, or two that are the same.
    """
    if names is None:
        return None
    for name in names:
        require_label(name, place)
    found = [spelled(name) for name in names]
    for name, count in Counter(found).items():
        if count > 1:
            raise DataError(f"{place}: {count} classes are called {name!r}; names must differ")
    return found


def require_label(label: object, image: object) -> None:
    """Refuse what is no name of a class, before many of them are kept.

    Raises:
        DataError: a text of more than 1,000 characters, or one that UTF-8 cannot write.
    """
    if not isinstance(label, str):
        return
    if len(label) > _LONGEST_LABEL:
        raise DataError(
            f"{image}: its label has {len(label):,} characters, expected at most {_LONGEST_LABEL:,}"
        )
    if not is_utf8(label):
        raise DataError(f"{image}: its label {label!r} is not UTF-8; rename the class")


def named_label(label: object, names: Sequence[str] | None, image: ImageFile) -> str | int:
    """A class's name, or its number where it has none.

    Args:
        label: as a file has it.
        names: of `spelled_names`.
        image: for messages.

    Raises:
        DataError: neither a number nor a name, a list, or one that is not among the names.
    """
    if isinstance(label, list | tuple):
        raise DataError(
            f"{image}: its label is {str(label)[:80]}; several labels an image, or none, need "
            "--task multilabel"
        )
    require_label(label, image)
    if not isinstance(label, (str, int)) or isinstance(label, bool) or label == "":
        raise DataError(f"{image}: its label is {label!r}, expected a number or a name")
    label = spelled(label) if isinstance(label, str) else label
    if names is None:
        if isinstance(label, int) and label < 0:  # what Hugging Face writes for "unlabelled"
            raise DataError(f"{image}: its label is {label}, expected 0 or more")
        return label
    if isinstance(label, int):
        if not 0 <= label < len(names):
            raise DataError(
                f"{image}: its label is {label}, expected 0 to {len(names) - 1}: "
                f"there are {len(names)} class names"
            )
        return names[label]
    if label not in names:
        raise DataError(f"{image}: its label {label!r} is not among the {len(names)} class names")
    return label
