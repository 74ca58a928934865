"""A split as training data: decoding, seeded augmentation, batches.

Everything random is drawn from (seed, epoch, image index), never from a running state: a resumed
training sees the same pixels as an uninterrupted one, whatever the number of threads.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, ImageOps

from vptkit.errors import DataError
from vptkit.images.image_file import open_image
from vptkit.images.preprocess import Preprocess, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from numpy.typing import NDArray

    from .splits import Split

__all__ = ["Augmentation", "DataSet"]

Augmentation = Literal["none", "flip", "crop"]
_VIEWS_STREAM = 3  # apart from the streams of epochs
_AT_ONCE = 64  # images that are decoded before they are looked at
_BUDGET = 1 << 30  # bytes of images kept in memory, per split


class DataSet:
    """A split as batches of prepared images.

    Images are kept in memory up to a budget of 1 GiB (as inference sees them; for random crops as
    they were decoded), the rest is read anew each epoch.
    """

    def __init__(self, split: Split, preprocess: Preprocess) -> None:
        """Nothing is decoded yet."""
        self.split = split
        self.preprocess = preprocess
        self._decoded: dict[int, Image.Image] = {}
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._sizes: dict[int, tuple[int, int]] = {}
        self._room = _BUDGET

    def __len__(self) -> int:
        """Number of images."""
        return len(self.split.images)

    def prepared(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Some images as inference sees them: uint8 [len(indices), H, W, 3]."""
        return np.stack([self._prepared(int(i)) for i in indices])

    def size_of(self, index: int) -> tuple[int, int]:
        """(width, height) of an image as it is in its file."""
        if index not in self._sizes:
            self._read(index)
        return self._sizes[index]

    def first_pass(
        self, share: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[int, NDArray[np.uint8] | DataError]]:
        """Every image in order, as inference sees it, or why there is none; what fits stays in memory.

        Args:
            share: of `evaluation_batches`.
        """

        def read(index: int) -> NDArray[np.uint8] | DataError:
            try:
                return self._prepared(index)
            except DataError as error:
                return error

        order = range(share[0], len(self), share[1])
        with ThreadPoolExecutor(max_workers=2) as pool:
            for start in range(0, len(order), _AT_ONCE):
                part = order[start : start + _AT_ONCE]
                yield from zip(part, pool.map(read, part), strict=True)

    def without(self, broken: Collection[int]) -> DataSet:
        """The same images but some, with what is in memory."""
        kept = np.setdiff1d(np.arange(len(self)), list(broken))
        split = replace(
            self.split,
            images=tuple(self.split.images[i] for i in kept),
            targets=self.split.targets[kept],
        )
        found = DataSet(split, self.preprocess)
        found._kept = {new: self._kept[old] for new, old in enumerate(kept) if old in self._kept}
        found._sizes = {new: self._sizes[old] for new, old in enumerate(kept) if old in self._sizes}
        found._room = self._room
        return found

    def evaluation_batches(
        self,
        size: int,
        *,
        view: int = 0,
        seed: int = 0,
        crop_scale: float = 1.0,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[Any]]]:
        """All images in order, as inference sees them or in another view: uint8 [B, H, W, 3], [B] or [B, C].

        Args:
            size: batch size.
            view: 0 as inference sees them, 1 mirrored, from 2 on each a random part of "crop".
            seed, crop_scale: of the random parts.
            share: (k, n): every n-th image from the k-th on.
        """

        def image(index: int) -> NDArray[np.uint8]:
            if view < 2:
                pixels = self._prepared(index)
                return pixels[:, ::-1] if view else pixels
            rng = np.random.default_rng([seed, view, index, _VIEWS_STREAM])
            return np.asarray(_random_crop(self._open(index), rng, self.preprocess, crop_scale))

        order = np.arange(len(self))[share[0] :: share[1]]
        parts = [order[i : i + size] for i in range(0, len(order), size)]
        for part, pixels in self._batches(parts, image):
            yield pixels, self.split.targets[part]

    def training_steps(self, size: int) -> int:
        """How many batches of that size `training_batches` yields in one epoch."""
        full, rest = divmod(len(self), size)
        return max(full + (2 * rest >= size), 1)

    def training_batches(
        self,
        size: int,
        *,
        seed: int,
        epoch: int,
        augment: Augmentation,
        crop_scale: float,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[Any]]]:
        """One epoch, shuffled and augmented: uint8 [B, H, W, 3], and the targets of `Split`.

        The last batch is dropped if it is smaller than half a batch.

        Args:
            size: batch size.
            seed, epoch: what all randomness is drawn from.
            augment: "none", "flip" (mirrored half of the time) or "crop" (a random part of the
                image, 3:4 to 4:3, and flip).
            crop_scale: the smallest share of the area that "crop" keeps.
            share: (k, n): of each batch every n-th image from the k-th on.
        """

        def image(index: int) -> NDArray[np.uint8]:
            rng = np.random.default_rng([seed, epoch, int(index)])
            if augment == "none":
                return self._prepared(int(index))
            if augment == "crop":
                picture = self._open(int(index))
                pixels = np.asarray(_random_crop(picture, rng, self.preprocess, crop_scale))
            else:
                pixels = self._prepared(int(index))
            return pixels[:, ::-1] if rng.random() < 0.5 else pixels

        order = np.random.default_rng([seed, epoch]).permutation(len(self))
        starts = range(0, size * self.training_steps(size), size)
        own = [order[i : i + size][share[0] :: share[1]] for i in starts]
        for part, pixels in self._batches(own, image):
            yield pixels, self.split.targets[part]

    def _batches(
        self, parts: list[NDArray[np.int64]], image: Callable[[int], NDArray[np.uint8]]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
        """Decode two batches ahead of the consumer, in two threads."""
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

    def _prepared(self, index: int) -> NDArray[np.uint8]:
        """As inference sees it: uint8 [H, W, 3]."""
        if index not in self._kept:
            image = self._decoded.get(index) or self._read(index)
            pixels = prepare(image, self.preprocess, self.split.images[index])
            if pixels.nbytes > self._room:
                return pixels
            self._room -= pixels.nbytes
            self._kept[index] = pixels
        return self._kept[index]

    def _open(self, index: int) -> Image.Image:
        if index in self._decoded:
            return self._decoded[index]
        image = self._read(index)
        size = image.width * image.height * 3
        if size <= self._room:
            self._room -= size
            self._decoded[index] = image
        return image

    def _read(self, index: int) -> Image.Image:
        image = open_image(self.split.images[index], inside=self.split.inside)
        self._sizes[index] = image.size
        return image


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
