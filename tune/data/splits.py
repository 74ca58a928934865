"""The images of a tuning run: train, val, test and ood, split if they are not, and their digest.

A split that would have fewer than five images a class says nothing: then there is none, and its
images are for training. Without val, cross-validation chooses (`vptkit.tune.phases.cross_validation`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.datasets.dataset_bounds import inside_of
from vptkit.datasets.dataset_summary import dataset_line, skipped_files
from vptkit.errors import DataError
from vptkit.images.image_file import digest_of_image
from vptkit.images.split_names import SPLIT_NAMES

from .dataset_reader import read_splits

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.images.image_file import ImageFile
    from vptkit.images.labelled_images import Classes, Splits

__all__ = [
    "FEWEST",
    "USUAL_SHARE",
    "Split",
    "class_counts",
    "counts_of",
    "data_digest",
    "load_splits",
    "require_use",
    "splits_line",
]

USUAL_SHARE = 0.15  # of the images of a class, for val and for test
FEWEST = 5  # images a class, in the mean, of a split that may choose or judge
_TOLD = 5  # classes
_SHOTS_STREAM = 2  # apart from the streams of the random split and of the whitening


@dataclass(frozen=True, slots=True)
class Split:
    """Images and their class indices.

    Attributes:
        images: files, or places in larger ones.
        targets: int64 [len(images)]; with several labels an image 0 or 1, float32 [len(images), C].
        inside: where the files must lie, of `vptkit.datasets.dataset_bounds.inside_of`.
        joined: how many of the images a named val had, which was too small to choose.
        notes: of train: what is odd about the splits, sentences.
    """

    images: tuple[ImageFile, ...]
    targets: NDArray[Any]
    inside: str | None = None
    joined: int = 0
    notes: tuple[str, ...] = ()


def load_splits(
    data: Path,
    seed: int,
    val_share: float,
    test_share: float,
    *,
    shots: int | None = None,
    allow_outside: bool = False,
    columns: str | None = None,
) -> tuple[tuple[str, ...], dict[str, Split]]:
    """Class names, train, and (if there are such images) val, test and ood.

    Where nothing names a split, the images are split at random, per class, into train, val and
    test; where there is train and no val, val is drawn from train. Both are drawn only with at least
    five images a class in the mean. A named val with fewer joins train.

    Args:
        data: of `vptkit.tune.data.dataset_reader.read_splits`.
        seed: of the random split, and of the choice of shots.
        val_share, test_share: shares of each class in that random split; 0 for none.
        shots: keep only so many training images of each class, drawn at random; more shots are a
            superset of fewer. The other splits stay whole: with shots a named val never joins train,
            whose number would not be that of the shots.
        allow_outside: of `vptkit.datasets.dataset_bounds.require_inside`.
        columns: of `vptkit.tune.data.dataset_reader.read_splits`.

    What other splits have of classes that train lacks is left out, and a split may lack some: `notes` of
    train say so. As many of one as of the other are a slip.

    Raises:
        DataError: no images, one class, no training images, a class too small, or a share
            other than the usual one of a split that is not drawn.
    """
    found = dict(read_splits(data, allow_outside=allow_outside, columns=columns))
    notes: tuple[str, ...] = ()
    if "" not in found:
        found, notes = _known_classes(data, found)
    named = "val" in found
    if set(found) == {"train"}:
        found = {"": found["train"]}
    require_use(data, found, {"val": val_share, "test": test_share})
    if "" in found:
        found = _draw(data, found[""], seed, {"val": val_share, "test": test_share})
    elif "train" in found and "val" not in found:
        found |= _draw(data, found["train"], seed, {"val": val_share})
    labels, joined = tuple(found["train"]), 0
    if len(labels) < 2:
        raise DataError(
            f"{data}: only one class, {labels[0]!r}: expected at least two. To tell it from the "
            "rest, add other pictures as a second class"
        )
    if shots is not None:
        found["train"] = _few(data, found["train"], seed, shots)
    elif named and _count(found["val"]) < FEWEST * len(labels):
        train, val = found["train"], found.pop("val")
        joined = _count(val)
        found["train"] = {label: [*train[label], *val.get(label, ())] for label in labels}
    inside = inside_of(data, allow_outside=allow_outside)
    splits = {name: _split(labels, classes, inside) for name, classes in found.items()}
    return labels, {**splits, "train": replace(splits["train"], joined=joined, notes=notes)}


def require_use(data: Path, found: Collection[str], shares: Mapping[str, float]) -> None:
    """Refuse a share that was asked for and decides nothing.

    Args:
        data: for the message.
        found: the splits that there are; "" where nothing names one.
        shares: of val and test.

    Raises:
        DataError: there is such a share.
    """
    drawn = {"val", "test"} if "" in found else {"val"} - set(found)
    for name, share in shares.items():
        if share != USUAL_SHARE and name not in drawn:
            why = (
                f"has its own {name}" if name in found else f"names its splits, and none is {name}"
            )
            raise DataError(
                f"{data}: {name}_share is {share:g}, which does nothing here: DATA {why}"
            )


def splits_line(
    data: Path, labels: Sequence[str], splits: Mapping[str, Split], *, shots: bool = False
) -> str:
    """What was read, and what was passed over; with shots, images that were not drawn are no such."""
    used = [image for split in splits.values() for image in split.images]
    names = sorted(splits, key=[*SPLIT_NAMES].index)
    counts = {name: len(splits[name].images) for name in names}
    several = splits["train"].targets.ndim == 2
    skipped = skipped_files(data, used, multilabel=several)
    if shots:
        del skipped["image in no class"], skipped["image not listed"]
    line = dataset_line(data, labels, counts, skipped, multilabel=several)
    joined = splits["train"].joined
    return line + (
        f"; the {joined} images of val, too few to choose by, are in train" if joined else ""
    )


def data_digest(splits: dict[str, Split]) -> str:
    """SHA-256 over the splits: their names, targets, and every image's bytes.

    Without ood, which decides nothing and is looked at once, after all is done: so the digest is
    that of the same folders before ood was read.

    Raises:
        DataError: an image cannot be read.
    """
    digest = hashlib.sha256()
    for name in sorted(set(splits) - {"ood"}):
        split = splits[name]
        for image, target in zip(split.images, split.targets, strict=True):
            told = np.flatnonzero(target).tolist() if split.targets.ndim == 2 else target
            about = f"{name}\0{image.name}\0{told}\0"
            # A name that is not UTF-8 counts with its bytes, as the file system has them.
            digest.update(
                about.encode(errors="surrogateescape") + digest_of_image(image, inside=split.inside)
            )
    return digest.hexdigest()


def class_counts(labels: tuple[str, ...], splits: dict[str, Split]) -> dict[str, dict[str, int]]:
    """Split → class → number of images: how balanced the data is."""
    return {
        name: dict(zip(labels, counts_of(split.targets, len(labels)).tolist(), strict=True))
        for name, split in splits.items()
    }


def counts_of(targets: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """How many images have each class or label, [C].

    Args:
        targets: of `Split`.
        classes: C.
    """
    if targets.ndim == 2:
        return np.asarray(targets.sum(axis=0), dtype=np.int64)
    return np.bincount(targets, minlength=classes)


def _draw(data: Path, classes: Classes, seed: int, shares: dict[str, float]) -> dict[str, Classes]:
    """Parts of each class at random, the rest as train; each class apart from the others.

    A part that would be too small to say anything stays in train.
    """
    mean = _count(classes) / max(len(classes), 1)
    shares = {name: share for name, share in shares.items() if share * mean >= FEWEST - 1e-9}
    names = ("train", *shares)
    parts: dict[str, dict[str, list[ImageFile]]] = {name: {} for name in names}
    for number, (label, images) in enumerate(classes.items()):
        order = np.random.default_rng([seed, number]).permutation(len(images))
        counts = [max(1, round(share * len(images))) for share in shares.values()]
        if len(images) < sum(counts) + 1:
            raise DataError(
                f"{data / label}: {len(images)} images are too few to split into "
                f"{', '.join(names[:-1])} and {names[-1]}; at least {len(names)} are needed"
            )
        drawn = np.split(order, np.cumsum(counts, dtype=int))
        for name, rows in zip((*names[1:], "train"), drawn, strict=True):
            parts[name][label] = [images[i] for i in sorted(rows)]
    return dict(parts)


def _count(classes: Classes) -> int:
    return sum(map(len, classes.values()))


def _few(data: Path, classes: Classes, seed: int, shots: int) -> Classes:
    small = {label: len(images) for label, images in classes.items() if len(images) < shots}
    if small:
        label, count = min(small.items(), key=lambda item: item[1])
        raise DataError(
            f"{data}: the class {label!r} has {count} training images, --shots wants {shots}"
        )
    chosen: dict[str, list[ImageFile]] = {}
    for number, (label, images) in enumerate(classes.items()):
        order = np.random.default_rng([seed, number, _SHOTS_STREAM]).permutation(len(images))
        chosen[label] = [images[i] for i in sorted(order[:shots])]
    return chosen


def _known_classes(data: Path, found: Splits) -> tuple[dict[str, Classes], tuple[str, ...]]:
    """The splits with train's classes alone, and what is odd about them.

    Raises:
        DataError: there is no train, or another split calls classes otherwise.
    """
    if "train" not in found:
        raise DataError(f"{data}: no training images, only {', '.join(sorted(found))}")
    labels = list(found["train"])
    kept: dict[str, Classes] = {}
    notes = []
    for name, classes in found.items():
        known = {label: images for label, images in classes.items() if label in found["train"]}
        odd = [label for label in classes if label not in known]
        missing = [label for label in labels if label not in known]
        if name != "ood" and len(odd) == len(missing) > 0:  # as many: they are called otherwise
            raise DataError(
                f"{data}: {name}: its classes differ from those of train: {sorted(odd + missing)[:6]}. "
                "Rename them; if they are others, take them away"
            )
        if odd:
            count = _count({label: classes[label] for label in odd})
            notes.append(
                f"{data}: {name} has {_classes(odd)} that train does not have; left out: "
                f"{count} image{'s' if count != 1 else ''}"
            )
        if not known:
            notes.append(f"{data}: {name} has no images of train's classes, so there is no {name}")
            continue
        if missing and name != "ood":
            notes.append(
                f"{data}: {name} has no images of {_classes(missing)}, which it says nothing of"
            )
        kept[name] = known
    return kept, tuple(notes)


def _classes(labels: Sequence[str]) -> str:
    """As "2 classes (pink, grey)"."""
    told = ", ".join([*labels[:_TOLD], *(["…"] if len(labels) > _TOLD else [])])
    return f"{len(labels)} class{'es' if len(labels) != 1 else ''} ({told})"


def _split(labels: tuple[str, ...], classes: Classes, inside: str | None) -> Split:
    images = tuple(image for label in labels for image in classes.get(label, []))
    targets = [i for i, label in enumerate(labels) for _ in classes.get(label, [])]
    return Split(images, np.asarray(targets, dtype=np.int64), inside)
