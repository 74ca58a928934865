"""Top-1 and top-5 of a bundle on a folder of classes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from vptkit.errors import DataError, GateError
from vptkit.images.dataset_bounds import inside_of, require_inside
from vptkit.images.dataset_files import read_data_files
from vptkit.images.image_file import class_folders
from vptkit.images.labelled_images import images_of, split_folders, split_of_name
from vptkit.progress import SILENT
from vptkit.regular_files import is_folder
from vptkit.runtime.session.image_loader import decode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.images.image_file import ImageFile
    from vptkit.images.labelled_images import Classes
    from vptkit.progress import Progress
    from vptkit.runtime.session.image_loader import Decoded
    from vptkit.runtime.session.session_protocol import Session

__all__ = ["Evaluation", "choose_split", "evaluate", "labelled_images", "split_folder"]

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How often a bundle is right.

    Attributes:
        data: the folder of classes, or the file or folder that holds them.
        count: images.
        top1, top5: shares of images whose class is the best, or among the five best (with fewer
            than six classes top5 is 1 by definition).
        classes: class name → {"count", "top1"}.
    """

    data: Path
    count: int
    top1: float
    top5: float
    classes: dict[str, dict[str, float]]

    def to_json(self) -> dict[str, Any]:
        """As `vptkit eval --json` prints it, without the bundle."""
        return {
            "data": str(self.data),
            "count": self.count,
            "top1": self.top1,
            "top5": self.top5,
            "classes": self.classes,
        }


def evaluate(
    session: Session,
    data: Path,
    *,
    adapter: str | None = None,
    split: str | None = None,
    allow_outside: bool = False,
    batch: int = 8,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Compare a bundle's answers with the names of the classes.

    Args:
        session: an open bundle; classes are matched with its labels by name.
        data: one folder per class, a folder with splits (`labelled_images.SPLIT_NAMES`) of such
            folders, a CSV or WebDataset shards (`vptkit.images.dataset_files`).
        adapter: which of a bank's adapters to ask.
        split: which of those; "test" unless given.
        allow_outside: of `vptkit.images.dataset_bounds.require_inside`.
        batch: images for each run; a fixed-batch bundle takes its own.
        workers: decoding threads, one for each usable core unless given.
        progress: told about each portion.

    Raises:
        DataError: no such data, classes that differ from the labels, or a broken image.
        BundleError: no such adapter, or a bank and none named.
        GateError: the logits hold NaN or Inf.
    """
    labels = session.bundle.labels_of(adapter)
    listed = read_data_files(data, allow_outside=allow_outside)
    if listed is None:
        place = split_folder(data, split)
        classes: Classes = class_folders(place)
        require_inside(data, images_of({"": classes}), allow_outside=allow_outside)
        spared: Collection[str] = labels if split_of_name(split or "") == "ood" else ()
    else:
        place, classes = data, choose_split(data, listed, split)
        spared = set().union(*listed.values())
    paths, truth = labelled_images(place, classes, labels, spared)
    progress.total = len(paths)
    size = session.bundle.batch or batch
    logits = np.empty((len(paths), len(labels)), dtype=np.float32)
    done = 0
    with contextlib.closing(
        decode(
            paths,
            session.bundle.preprocess,
            workers=workers,
            read_ahead=max(32, 2 * size),
            inside=inside_of(data, allow_outside=allow_outside),
        )
    ) as images:
        while portion := list(_pixels(islice(images, size))):
            logits[done : done + len(portion)] = session.run(np.stack(portion), adapter)
            done += len(portion)
            progress.update(len(portion))
    return _count(place, labels, truth, logits)


def choose_split(data: Path, found: Mapping[str, Found], split: str | None) -> Found:
    """What is found of one split: "test" unless given, or the only one there is.

    Raises:
        DataError: there is no such split.
    """
    if split is None:
        split = next(iter(found)) if len(found) == 1 else "test"
    chosen = split_of_name(split) or split
    if chosen not in found:
        there = ", ".join(sorted(filter(None, found))) or "images without a split"
        raise DataError(f"{data}: no split {split!r}, only {there}; --split names another")
    return found[chosen]


def split_folder(data: Path, split: str | None) -> Path:
    """The folder of classes in `data`: itself, or one of its splits.

    Raises:
        DataError: the folder or its split does not exist.
    """
    if not is_folder(data):
        raise DataError(f"{data}: no such folder")
    if split is not None and is_folder(data / split):
        return data / split
    found = split_folders(data)
    return choose_split(data, found, split) if found or split is not None else data


def labelled_images(
    place: Path, classes: Classes, labels: tuple[str, ...], spared: Collection[str] = ()
) -> tuple[list[ImageFile], NDArray[np.intp]]:
    """All images of some classes, and the index of each one's class among the labels.

    Args:
        place: what was read, for messages.
        classes: the images.
        labels: of the bundle.
        spared: labels that need no images there: other splits have them, or it is ood.

    Raises:
        DataError: the classes are not the labels.
    """
    unknown = sorted(set(classes) - set(labels))
    absent = sorted(set(labels) - set(classes) - set(spared))
    if unknown or absent:
        parts = [f"classes that are not labels: {', '.join(unknown)}"] if unknown else []
        parts += [f"labels without images: {', '.join(absent)}"] if absent else []
        raise DataError(
            f"{place}: its classes differ from the bundle's labels: {'; '.join(parts)}. "
            "Both must be the same set of names."
        )
    paths = [path for files in classes.values() for path in files]
    truth = [labels.index(name) for name, files in classes.items() for _ in files]
    return paths, np.asarray(truth, dtype=np.intp)


def _pixels(portion: Iterable[Decoded[ImageFile]]) -> Iterator[NDArray[np.uint8]]:
    for _, item in portion:
        if isinstance(item, DataError):
            raise item
        yield item


def _count(
    folder: Path, labels: tuple[str, ...], truth: NDArray[np.intp], logits: NDArray[np.float32]
) -> Evaluation:
    if not np.isfinite(logits).all():
        raise GateError(f"{folder}: the logits hold NaN or Inf; no accuracy can be given")
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]  # equal logits: the first label first
    first = best[:, 0] == truth
    among_five = (best == truth[:, None]).any(axis=1)
    classes = {
        label: {"count": int(rows.sum()), "top1": float(first[rows].mean())}
        for i, label in enumerate(labels)
        if (rows := truth == i).any()
    }
    return Evaluation(
        data=folder,
        count=len(truth),
        top1=float(first.mean()),
        top5=float(among_five.mean()),
        classes=classes,
    )
