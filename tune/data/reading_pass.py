"""Every image once, before anything is trained: which are broken, and which are in two splits.

What is decoded here stays in memory as far as there is room (`dataset.DataSet`), so of a set of some
thousand images nothing is decoded twice for it; of a larger one it takes the time of one epoch's decoding.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vptkit.errors import DataError
from vptkit.images.broken_images import TOLD, few, name_within
from vptkit.images.similar_images import SMALL, difference, look_of, near_pairs, one_is_the_same

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.images.image_file import ImageFile
    from vptkit.progress import Progress

    from .dataset import DataSet

__all__ = [
    "Broken",
    "Reading",
    "Twice",
    "read_all",
    "skipped_places",
    "skipped_record",
    "twice",
    "twice_record",
    "twice_text",
    "whole_ones",
    "without_broken",
]

_RECORDED = 100  # images that an adapter names
_STEP = 100  # images, between two signs of life


class Broken(NamedTuple):
    """An image that cannot be read, its split and place there, and the reason, which names it."""

    split: str
    row: int
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

    @property
    def reasons(self) -> list[str]:
        """Why each broken one is, by name."""
        return [one.why for one in self.broken]


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


def without_broken(
    data: Path, labels: Sequence[str], sets: Mapping[str, DataSet], reading: Reading
) -> tuple[dict[str, DataSet], Reading]:
    """The splits without their broken images, and what of the reading is left: the same broken ones.

    Raises:
        DataError: a class has no training image left.
    """
    kept, left = whole_ones(sets, reading)
    there = np.bincount(kept["train"].split.targets, minlength=len(labels))
    if not there.all():
        label = labels[int(there.argmin())]
        raise DataError(f"{data}: of the class {label!r} no training image can be read")
    return kept, left


def whole_ones(sets: Mapping[str, DataSet], reading: Reading) -> tuple[dict[str, DataSet], Reading]:
    """As `without_broken`, whatever is left of a class."""
    kept: dict[str, DataSet] = {}
    looks: dict[str, NDArray[np.uint64]] = {}
    for name, images in sets.items():
        lost = [one.row for one in reading.broken if one.split == name]
        kept[name] = images.without(lost) if lost else images
        looks[name] = np.delete(reading.looks[name], lost)
    return kept, Reading(reading.count, reading.broken, looks)


def twice(sets: Mapping[str, DataSet], reading: Reading) -> tuple[Twice, ...]:
    """The images that two splits share, by what they show: also written anew, or at another size.

    Args:
        sets: the splits, without broken images.
        reading: of `read_all`, or of `without_broken`.
    """
    found = []
    for first, second in itertools.combinations(sets, 2):
        pairs = near_pairs(reading.looks[second], reading.looks[first])
        for i, proposed in itertools.groupby(pairs, key=lambda pair: pair[0]):
            pixels = _pixels(sets[second], i)
            differences = {j: difference(pixels, _pixels(sets[first], j)) for _, j in proposed}
            j = min(differences, key=differences.__getitem__)
            small = min(*sets[second].size_of(i), *sets[first].size_of(j)) < SMALL
            if one_is_the_same(list(differences.values()), small=small):
                images = sets[second].split.images[i], sets[first].split.images[j]
                found.append(Twice((second, first), images))
    return tuple(found)


def _pixels(data: DataSet, index: int) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = data.prepared(np.array([index]))[0]
    return pixels


def twice_text(data: Path, found: Sequence[Twice]) -> str:
    """As "2 images are in two splits, …: test/a.jpg is train/b.jpg; …", the first pairs named."""
    told = [" is ".join(name_within(data, image) for image in one.images) for one in found[:TOLD]]
    are = "1 image is" if len(found) == 1 else f"{len(found):,} images are"
    return f"{are} in two splits, so accuracy flatters: {few(told, len(found))}"


def skipped_record(data: Path, broken: Sequence[Broken]) -> list[dict[str, str]]:
    """The first 100: split, name within the data set, and the reason.

    An adapter has it, and may be shared: where the data lies is not said.
    """
    found = []
    for one in broken[:_RECORDED]:
        name = name_within(data, one.image)
        found.append(
            {"split": one.split, "name": name, "reason": one.why.replace(str(one.image), name)}
        )
    return found


def skipped_places(data: Path, record: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """An adapter's `skipped_record` with the paths, for whoever has the data."""
    folder = data if data.is_dir() else data.parent
    return [{**one, "path": str(folder / one["name"])} for one in record]


def twice_record(data: Path, found: Sequence[Twice]) -> list[dict[str, str]]:
    """The first 100 likewise: as [{"test": a name, "train": a name}]."""
    return [
        {
            split: name_within(data, image)
            for split, image in zip(one.splits, one.images, strict=True)
        }
        for one in found[:_RECORDED]
    ]
