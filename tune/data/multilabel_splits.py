"""The images of a run where each has any number of labels: train, val, test and ood.

As `splits` has it for one label an image; images with a label are counted where that counts images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vptkit.datasets.dataset_bounds import inside_of
from vptkit.datasets.multilabel_dataset import LabelledImages, LabelSets, read_multilabel
from vptkit.datasets.table_columns import parse_columns
from vptkit.errors import DataError
from vptkit.paths.path_advice import advised

from .dataset_reader import read_label_archives, read_splits
from .label_strata import label_strata
from .splits import FEWEST, Split, require_use

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["load_label_splits", "read_label_sets"]

_STREAM = 5  # apart from the other streams of the seed
_TOLD = 5  # labels


def read_label_sets(
    data: Path, *, allow_outside: bool = False, columns: str | None = None
) -> LabelSets:
    """All images with their labels, in the splits that the data names.

    Args:
        data: of `vptkit.datasets.multilabel_dataset.read_multilabel`, or what has one label an image.
        allow_outside, columns: of `dataset_reader.read_splits`.

    Raises:
        DataError: no images, no label, or broken.
    """
    with advised(data, "data", DataError):
        return read_multilabel(
            data,
            lambda: read_splits(data, allow_outside=allow_outside, columns=columns),
            archived=lambda: read_label_archives(data, allow_outside=allow_outside),
            allow_outside=allow_outside,
            columns=parse_columns(columns),
        )


def load_label_splits(
    data: Path,
    seed: int,
    val_share: float,
    test_share: float,
    *,
    allow_outside: bool = False,
    columns: str | None = None,
) -> tuple[tuple[str, ...], dict[str, Split]]:
    """Labels, train, and (if there are such images) val, test and ood; targets are 0 or 1, float32 [n, C].

    Where nothing names a split, images are drawn for val and test, every label by its share
    (`label_strata`), if that gives five images a label in the mean. A named val with fewer joins train.

    Args:
        data: of `read_label_sets`.
        seed, val_share, test_share, allow_outside, columns: of `splits.load_splits`.

    Labels that no training image has are left out, which `notes` of train say; so do they of labels that
    every one has.

    Raises:
        DataError: no images, no label, no training images, or a share other than the usual one of a
            split that is not drawn.
    """
    labels, found = read_label_sets(data, allow_outside=allow_outside, columns=columns)
    if "" not in found and "train" not in found:
        raise DataError(f"{data}: no training images, only {', '.join(sorted(found))}")
    named = "val" in found
    if set(found) == {"train"}:
        found = {"": found["train"]}
    shares = {"val": val_share, "test": test_share}
    require_use(data, found, shares)
    if "" in found:
        found = _drawn(found[""], seed, shares)
    elif "val" not in found:
        found = {**found, **_drawn(found["train"], seed, {"val": val_share})}
    joined = 0
    if named and _count(found["val"]) < FEWEST * len(labels):
        joined = len(found["val"].images)
        found["train"] = _joined(found["train"], found.pop("val"))
    labels, found, notes = _known_labels(data, labels, found)
    inside = inside_of(data, allow_outside=allow_outside)
    splits = {
        name: Split(part.images, part.truth.astype(np.float32), inside)
        for name, part in found.items()
    }
    train = splits["train"]
    splits["train"] = Split(train.images, train.targets, inside, joined, tuple(notes))
    return labels, splits


def _known_labels(
    data: Path, labels: Sequence[str], found: Mapping[str, LabelledImages]
) -> tuple[tuple[str, ...], dict[str, LabelledImages], list[str]]:
    """The splits with the labels of train alone, and what is odd about labels."""
    truth = found["train"].truth
    there, notes = truth.any(axis=0), []
    if not there.any():
        raise DataError(f"{data}: no training image has a label")
    if not there.all():
        odd = [labels[int(i)] for i in np.flatnonzero(~there)]
        notes.append(f"{data}: no training image has {_told(odd)}; left out")
    if truth.all(axis=0).any():
        odd = [labels[int(i)] for i in np.flatnonzero(truth.all(axis=0))]
        notes.append(
            f"{data}: every training image has {_told(odd)}: all other images will be said to have it, too"
        )
    kept = {name: LabelledImages(part.images, part.truth[:, there]) for name, part in found.items()}
    return tuple(labels[int(i)] for i in np.flatnonzero(there)), kept, notes


def _drawn(
    part: LabelledImages, seed: int, shares: Mapping[str, float]
) -> dict[str, LabelledImages]:
    """Parts of the images at random; one that would be too small to say anything stays in train."""
    mean = _count(part) / part.truth.shape[1]
    kept = {name: share for name, share in shares.items() if share * mean >= FEWEST - 1e-9}
    names = ["train", *kept]
    rng = np.random.default_rng([seed, _STREAM])
    places = label_strata(part.truth, [1 - sum(kept.values()), *kept.values()], rng)
    return {name: _some(part, places == number) for number, name in enumerate(names)}


def _some(part: LabelledImages, chosen: NDArray[np.bool_]) -> LabelledImages:
    rows = np.flatnonzero(chosen)
    return LabelledImages(tuple(part.images[i] for i in rows), part.truth[rows])


def _joined(first: LabelledImages, second: LabelledImages) -> LabelledImages:
    truth = np.concatenate([first.truth, second.truth])
    return LabelledImages((*first.images, *second.images), truth)


def _count(part: LabelledImages) -> int:
    """How often there is a label."""
    return int(part.truth.sum())


def _told(labels: Sequence[str]) -> str:
    """As "2 labels (pink, grey)"."""
    told = ", ".join([*labels[:_TOLD], *(["…"] if len(labels) > _TOLD else [])])
    return f"{len(labels)} label{'s' if len(labels) != 1 else ''} ({told})"
