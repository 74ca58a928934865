"""Every image once, before anything is trained: which are broken, and which are in two splits.

What is decoded here stays in memory as far as there is room (`dataset.DataSet`), so of a set of some
thousand images nothing is decoded twice for it; of a larger one it takes the time of one epoch's decoding.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vptkit.errors import DataError
from vptkit.images.similar_images import are_the_same, look_of, near_pairs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from vptkit.images.image_file import ImageFile
    from vptkit.progress import Progress

    from .dataset import DataSet

__all__ = [
    "Broken",
    "Reading",
    "Twice",
    "read_all",
    "require_whole",
    "skipped_record",
    "skipped_text",
    "twice",
    "twice_record",
    "twice_text",
    "without_broken",
]

_MOST_TOLD = 1000  # broken images in one message
_TOLD, _RECORDED = 5, 100  # in a sentence; in an adapter
_STEP = 100  # images, between two signs of life


class Broken(NamedTuple):
    """An image that cannot be read, its split and place there, and the reason, which names it."""

    split: str
    index: int
    image: ImageFile
    why: str


class Twice(NamedTuple):
    """The same picture in two splits."""

    splits: tuple[str, str]
    images: tuple[ImageFile, ImageFile]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the pass found.

    Attributes:
        count: images that were read, or tried.
        broken: those that cannot be.
        looks: split → `vptkit.images.similar_images.look_of` its images, 0 of broken ones.
    """

    count: int = 0
    broken: tuple[Broken, ...] = ()
    looks: Mapping[str, NDArray[np.uint64]] = field(default_factory=dict)


def read_all(
    sets: Mapping[str, DataSet], progress: Progress, share: tuple[int, int] = (0, 1)
) -> Reading:
    """Decode every image of some splits.

    Args:
        sets: the splits.
        progress: told about every hundredth image.
        share: (k, n): every n-th image from the k-th on; of the others nothing is found.
    """
    total, done = sum(map(len, sets.values())), 0
    broken: list[Broken] = []
    looks: dict[str, NDArray[np.uint64]] = {}
    for name, data in sets.items():
        looks[name] = np.zeros(len(data), dtype=np.uint64)
        for index, pixels in data.first_pass(share):
            done += 1
            if isinstance(pixels, DataError):
                broken.append(Broken(name, index, data.split.images[index], str(pixels)))
            else:
                looks[name][index] = look_of(pixels)
            if done % _STEP == 0:
                progress.update(0, f"{done} of {total} images")
    return Reading(done, tuple(broken), looks)


def require_whole(data: Path, reading: Reading) -> None:
    """Refuse broken images, all of them by name.

    Raises:
        DataError: there are some.
    """
    if not reading.broken:
        return
    reasons = [one.why for one in reading.broken[:_MOST_TOLD]]
    more = len(reading.broken) - len(reasons)
    told = "; ".join(reasons + ([f"and {more:,} more"] if more else []))
    count = f"{len(reading.broken):,} of {reading.count:,} images cannot be read"
    raise DataError(f"{data}: {count}. --skip-broken goes on without them: {told}")


def without_broken(
    data: Path, labels: Sequence[str], sets: Mapping[str, DataSet], reading: Reading
) -> tuple[dict[str, DataSet], Reading]:
    """The splits without their broken images, and what of the reading is left: the same broken ones.

    Raises:
        DataError: a class has no training image left.
    """
    kept: dict[str, DataSet] = {}
    looks: dict[str, NDArray[np.uint64]] = {}
    for name, images in sets.items():
        lost = [one.index for one in reading.broken if one.split == name]
        kept[name] = images.without(lost) if lost else images
        looks[name] = np.delete(reading.looks[name], lost)
    there = np.bincount(kept["train"].split.targets, minlength=len(labels))
    if not there.all():
        label = labels[int(there.argmin())]
        raise DataError(f"{data}: of the class {label!r} no training image can be read")
    return kept, Reading(reading.count, reading.broken, looks)


def twice(sets: Mapping[str, DataSet], reading: Reading) -> tuple[Twice, ...]:
    """The images that two splits share, by what they show: also written anew, or at another size.

    Args:
        sets: the splits, without broken images.
        reading: of `read_all`, or of `without_broken`.
    """
    found = []
    for first, second in itertools.combinations(sets, 2):
        seen: set[int] = set()
        for i, j in near_pairs(reading.looks[second], reading.looks[first]):
            if i in seen:
                continue  # once is enough
            a, b = (sets[name].prepared(np.array([k])) for name, k in ((second, i), (first, j)))
            if are_the_same(a[0], b[0]):
                seen.add(i)
                images = sets[second].split.images[i], sets[first].split.images[j]
                found.append(Twice((second, first), images))
    return tuple(found)


def twice_text(data: Path, found: Sequence[Twice]) -> str:
    """As "2 images are in two splits, …: test/a.jpg is train/b.jpg; …", the first pairs named."""
    told = [" is ".join(_called(data, image) for image in one.images) for one in found[:_TOLD]]
    are = "1 image is" if len(found) == 1 else f"{len(found):,} images are"
    return f"{are} in two splits, so accuracy flatters: {_few(told, len(found))}"


def skipped_text(data: Path, broken: Sequence[Broken]) -> str:
    """As "3 broken images were skipped: train/red/1.png; …"."""
    told = [_called(data, one.image) for one in broken[:_TOLD]]
    were = "1 broken image was" if len(broken) == 1 else f"{len(broken):,} broken images were"
    return f"{were} skipped: {_few(told, len(broken))}"


def skipped_record(data: Path, broken: Sequence[Broken]) -> list[dict[str, str]]:
    """The first 100 for an adapter, which may be shared: split and name within the data set."""
    return [{"split": one.split, "name": _called(data, one.image)} for one in broken[:_RECORDED]]


def twice_record(data: Path, found: Sequence[Twice]) -> list[dict[str, str]]:
    """The first 100 likewise: as [{"test": a name, "train": a name}]."""
    return [
        {split: _called(data, image) for split, image in zip(one.splits, one.images, strict=True)}
        for one in found[:_RECORDED]
    ]


def _few(told: Sequence[str], count: int) -> str:
    return "; ".join([*told, *([f"and {count - len(told):,} more"] if count > len(told) else [])])


def _called(data: Path, image: ImageFile) -> str:
    """An image's name below its data set; an adapter that is shared says not where that lies."""
    folder = data if data.is_dir() else data.parent
    if isinstance(image, Path) and image.is_relative_to(folder):
        return str(image.relative_to(folder))
    return image.name
