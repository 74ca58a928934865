"""Images of a data set with all their labels, in the order of a bundle's."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vptkit.datasets.dataset_files import read_data_files
from vptkit.datasets.multilabel_dataset import read_multilabel
from vptkit.errors import DataError
from vptkit.images.image_file import spelled
from vptkit.paths.path_advice import advised

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.images.image_file import ImageFile
    from vptkit.images.labelled_images import Splits

__all__ = ["SeveralLabels", "in_order", "listed_images", "read_several"]


class SeveralLabels(NamedTuple):
    """Some images with all their labels.

    Attributes:
        split: which split of the data they are; "" where nothing names one.
        labels: names, as the data has them.
        images: files.
        truth: whether an image has a label, [images, labels].
    """

    split: str
    labels: tuple[str, ...]
    images: tuple[ImageFile, ...]
    truth: NDArray[np.bool_]


def read_several(
    data: Path,
    single: Callable[[], Splits],
    choose: Callable[[Mapping[str, object]], str],
    *,
    allow_outside: bool,
    columns: Mapping[str, str],
) -> SeveralLabels:
    """One split of a data set.

    Args:
        data, single, allow_outside, columns: of `vptkit.datasets.multilabel_dataset.read_multilabel`.
        choose: which of the splits that there are.

    Raises:
        DataError: no such data, or no such split.
    """
    with advised(data, "data", DataError):
        found = read_multilabel(data, single, allow_outside=allow_outside, columns=columns)
        split = choose(found.splits)
    return SeveralLabels(split, found.labels, *found.splits[split])


def in_order(found: SeveralLabels, labels: tuple[str, ...]) -> NDArray[np.bool_] | tuple[str, ...]:
    """The truth [images, C] in the order of a bundle's labels, or the names that it does not know.

    A column of the data that no image has is no fault.
    """
    used = np.atleast_1d(found.truth.any(axis=0))
    places = {spelled(label): place for place, label in reversed([*enumerate(labels)])}
    names = [*map(spelled, found.labels)]
    unknown = tuple(
        label for label, has in zip(names, used, strict=True) if has and label not in places
    )
    if unknown:
        return unknown
    truth = np.zeros((len(found.images), len(labels)), dtype=bool)
    for column in np.flatnonzero(used):
        truth[:, places[names[column]]] = found.truth[:, column]
    return truth


def listed_images(
    data: Path,
    *,
    several: bool,
    allow_outside: bool = False,
    columns: Mapping[str, str] | None = None,
) -> Splits | None:
    """As `vptkit.datasets.dataset_files.read_data_files`, where labels may be several, or do not matter.

    Args:
        data, allow_outside, columns: of `read_data_files`.
        several: an image may have several labels: then all images of a split are of one class, which
            has no name.

    Raises:
        DataError: see `read_data_files`, and `read_multilabel`.
    """
    others: list[Splits | None] = []

    def single() -> Splits:
        others.append(read_data_files(data, allow_outside=allow_outside, columns=columns))
        return others[0] or {}

    if not several:
        single()
        return others[0]
    found = read_multilabel(data, single, allow_outside=allow_outside, columns=columns)
    if others:
        return others[0]
    return {name: {"": part.images} for name, part in found.splits.items()}
