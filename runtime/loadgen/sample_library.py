"""The images that LoadGen asks for by number (its query sample library): prepared, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from vptkit.errors import DataError
from vptkit.images.broken_images import require_whole
from vptkit.runtime.measure.timing import random_images
from vptkit.runtime.session.image_loader import decoded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vptkit.formats.bundle import Bundle
    from vptkit.images.image_file import ImageFile
    from vptkit.images.preprocess import Preprocess

__all__ = ["FileSamples", "HeldSamples", "SampleLibrary", "held_samples"]

_NOISE = 64
_LOADED = 1024  # images in memory at once, as MLPerf's ResNet-50


class SampleLibrary(Protocol):
    """Images by number."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def loaded(self) -> int:
        """How many are in memory at once."""

    def load(self, numbers: Sequence[int]) -> None:
        """Have some ready."""

    def unload(self, numbers: Sequence[int]) -> None:
        """Forget some."""

    def batch(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """Those that are ready, uint8 [B, H, W, 3]."""


class HeldSamples:
    """Images that are in memory anyway."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images = images
        self.count = self.loaded = len(images)

    def load(self, numbers: Sequence[int]) -> None:
        """Nothing: they are there."""

    def unload(self, numbers: Sequence[int]) -> None:
        """Nothing."""

    def batch(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """Those, uint8 [B, H, W, 3]."""
        return self._images[np.asarray(numbers, dtype=np.intp)]


class FileSamples:
    """Image files, decoded before the clock of a run starts, at most 1024 at once."""

    def __init__(
        self, paths: Sequence[ImageFile], preprocess: Preprocess, *, inside: str | None = None
    ) -> None:
        """Read nothing yet.

        Args:
            paths: the files, at least one.
            preprocess: how they are prepared.
            inside: of `vptkit.datasets.dataset_bounds.inside_of`.
        """
        self._paths, self._preprocess, self._inside = paths, preprocess, inside
        self._ready: dict[int, NDArray[np.uint8]] = {}
        self.count, self.loaded = len(paths), min(len(paths), _LOADED)

    def load(self, numbers: Sequence[int]) -> None:
        """Decode some.

        Raises:
            DataError: files are broken; all of those are named.
        """
        wanted = [i for i in dict.fromkeys(numbers) if i not in self._ready]
        paths = [self._paths[i] for i in wanted]
        broken = []
        images = decoded(paths, self._preprocess, inside=self._inside)
        for i, (_, item) in zip(wanted, images, strict=True):
            if isinstance(item, DataError):
                broken.append(str(item))
            else:
                self._ready[i] = item
        if broken:
            require_whole("LoadGen's", broken, len(paths), cure="")

    def unload(self, numbers: Sequence[int]) -> None:
        """Forget some."""
        for i in numbers:
            self._ready.pop(i, None)

    def batch(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """Those that are ready, uint8 [B, H, W, 3]."""
        return np.stack([self._ready[i] for i in numbers])


def held_samples(bundle: Bundle, adapter: str | None, seed: int = 0) -> HeldSamples:
    """The golden images of a bundle; noise where it has none."""
    names = (adapter,) if adapter else bundle.adapter_names
    found = [golden[0] for name in names if (golden := bundle.golden(name)) is not None]
    if found:
        return HeldSamples(np.concatenate(found))
    return HeldSamples(random_images(_NOISE, bundle.preprocess.size, seed=seed))
