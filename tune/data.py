"""Class folders as training data: splits, a digest, decoding, seeded augmentation.

Everything random is drawn from (seed, epoch, image index), never from a running state: a resumed
training sees the same pixels as an uninterrupted one, whatever the number of threads.
"""

from __future__ import annotations

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageOps

from vptkit.errors import DataError
from vptkit.images import class_folders, open_image
from vptkit.preprocess import Preprocess, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Augmentation", "DataSet", "Split", "data_digest", "load_splits"]

Augmentation = Literal["none", "flip", "crop"]
_DECODED_BUDGET = 1 << 30  # bytes of decoded images kept in memory, per split


@dataclass(frozen=True, slots=True)
class Split:
    """Images and their class indices.

    Attributes:
        paths: one a file.
        targets: int64 [len(paths)].
    """

    paths: tuple[Path, ...]
    targets: NDArray[np.int64]


def load_splits(
    data: Path, seed: int, val_share: float, test_share: float
) -> tuple[tuple[str, ...], dict[str, Split]]:
    """Class names and the splits train, val and (if there are enough images) test.

    Args:
        data: a folder with train/, val/ and perhaps test/, each with one folder per class; or one
            folder per class directly, which is then split at random, per class.
        seed: of that random split.
        val_share, test_share: shares of each class in that random split.

    Raises:
        DataError: no images, one class, splits with different classes, or a class too small.
    """
    if not data.is_dir():
        raise DataError(f"{data}: no such folder")
    if not (data / "train").is_dir():
        return _split_at_random(data, seed, val_share, test_share)
    if not (data / "val").is_dir():
        raise DataError(
            f"{data}: has train/ but no val/. Add val/ (the best epoch is chosen on it), or pass "
            f"{data / 'train'}, to have it split."
        )
    found = {
        name: class_folders(data / name)
        for name in ("train", "val", "test")
        if (data / name).is_dir()
    }
    labels = tuple(found["train"])
    for name, classes in found.items():
        if tuple(classes) != labels:
            odd = sorted(set(classes) ^ set(labels))
            raise DataError(f"{data / name}: its classes differ from those of train/: {odd[:5]}")
    return labels, {name: _split(list(classes.values())) for name, classes in found.items()}


def data_digest(splits: dict[str, Split]) -> str:
    """SHA-256 over the splits: their names, targets, and every file's bytes."""
    digest = hashlib.sha256()
    for name in sorted(splits):
        split = splits[name]
        for path, target in zip(split.paths, split.targets, strict=True):
            content = hashlib.sha256(path.read_bytes()).digest()
            digest.update(f"{name}\0{path.name}\0{target}\0".encode() + content)
    return digest.hexdigest()


class DataSet:
    """A split as batches of prepared images.

    Decoded images are kept in memory up to a budget of 1 GiB, then decoded anew each epoch.
    """

    def __init__(self, split: Split, preprocess: Preprocess) -> None:
        """Nothing is decoded yet."""
        self.split = split
        self.preprocess = preprocess
        self._decoded: dict[int, Image.Image] = {}
        self._room = _DECODED_BUDGET

    def __len__(self) -> int:
        """Number of images."""
        return len(self.split.paths)

    def prepared(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Some images as inference sees them: uint8 [len(indices), H, W, 3]."""
        return np.stack([prepare(self._open(int(i)), self.preprocess) for i in indices])

    def evaluation_batches(
        self, size: int, *, flip: bool = False
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """All images in order, as inference sees them (or mirrored): uint8 [B, H, W, 3], [B]."""

        def image(index: int) -> NDArray[np.uint8]:
            pixels = prepare(self._open(index), self.preprocess)
            return pixels[:, ::-1] if flip else pixels

        order = np.arange(len(self))
        for part, pixels in self._batches(order, size, image):
            yield pixels, self.split.targets[part]

    def training_batches(
        self, size: int, *, seed: int, epoch: int, augment: Augmentation, crop_scale: float
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """One epoch, shuffled and augmented: uint8 [B, H, W, 3], int64 [B].

        The last batch is dropped if it is smaller than half a batch.

        Args:
            size: batch size.
            seed, epoch: what all randomness is drawn from.
            augment: "none", "flip" (mirrored half of the time) or "crop" (a random part of the
                image, 3:4 to 4:3, and flip).
            crop_scale: the smallest share of the area that "crop" keeps.
        """

        def image(index: int) -> NDArray[np.uint8]:
            rng = np.random.default_rng([seed, epoch, int(index)])
            picture = self._open(int(index))
            if augment == "none":
                return prepare(picture, self.preprocess)
            if augment == "crop":
                picture = _random_crop(picture, rng, self.preprocess, crop_scale)
                pixels = np.asarray(picture)
            else:
                pixels = prepare(picture, self.preprocess)
            return pixels[:, ::-1] if rng.random() < 0.5 else pixels

        order = np.random.default_rng([seed, epoch]).permutation(len(self))
        for part, pixels in self._batches(order, size, image):
            if len(part) * 2 >= size or len(order) < size:
                yield pixels, self.split.targets[part]

    def _batches(
        self, order: NDArray[np.int64], size: int, image: Callable[[int], NDArray[np.uint8]]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
        """Decode two batches ahead of the consumer, in two threads."""
        parts = [order[i : i + size] for i in range(0, len(order), size)]
        with ThreadPoolExecutor(max_workers=2) as pool:
            ahead = [[pool.submit(image, int(i)) for i in part] for part in parts[:2]]
            try:
                for number, part in enumerate(parts):
                    futures = ahead.pop(0)
                    if number + 2 < len(parts):
                        ahead.append([pool.submit(image, int(i)) for i in parts[number + 2]])
                    yield part, np.stack([future.result() for future in futures])
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _open(self, index: int) -> Image.Image:
        if index in self._decoded:
            return self._decoded[index]
        image = open_image(self.split.paths[index])
        size = image.width * image.height * 3
        if size <= self._room:
            self._room -= size
            self._decoded[index] = image
        return image


def _split_at_random(
    data: Path, seed: int, val_share: float, test_share: float
) -> tuple[tuple[str, ...], dict[str, Split]]:
    parts: dict[str, list[list[Path]]] = {"train": [], "val": [], "test": []}
    classes = class_folders(data)
    for number, (name, files) in enumerate(classes.items()):
        order = np.random.default_rng([seed, number]).permutation(len(files))
        val, test = (max(1, round(share * len(files))) for share in (val_share, test_share))
        if len(files) < val + test + 1:
            raise DataError(
                f"{data / name}: {len(files)} images are too few to split into train, val and "
                "test; at least 3 are needed"
            )
        shuffled = [files[i] for i in order]
        parts["val"].append(sorted(shuffled[:val]))
        parts["test"].append(sorted(shuffled[val : val + test]))
        parts["train"].append(sorted(shuffled[val + test :]))
    return tuple(classes), {name: _split(files) for name, files in parts.items()}


def _split(classes: list[list[Path]]) -> Split:
    paths = tuple(path for files in classes for path in files)
    targets = [i for i, files in enumerate(classes) for _ in files]
    return Split(paths, np.asarray(targets, dtype=np.int64))


def _random_crop(
    image: Image.Image, rng: np.random.Generator, preprocess: Preprocess, smallest: float
) -> Image.Image:
    """A random part of the image, resized (Inception's crop, as torchvision draws it)."""
    height, width = preprocess.size
    area = image.width * image.height
    box = None
    for _ in range(10):
        target = area * rng.uniform(smallest, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= image.width and 0 < h <= image.height:
            left = int(rng.integers(image.width - w + 1))
            top = int(rng.integers(image.height - h + 1))
            box = (left, top, left + w, top + h)
            break
    resample = Image.Resampling[preprocess.interpolation.upper()]
    if box is None:
        return ImageOps.fit(image, (width, height), resample)
    return image.resize((width, height), resample, box=box)
