"""Images of a request: encoded ones are decoded in threads, pixels are taken as they are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vptkit.devices.probes.machine import usable_cores
from vptkit.errors import DataError
from vptkit.images.image_file import MAX_BYTES
from vptkit.images.image_pixels import pixels_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vptkit.images.preprocess import Preprocess

__all__ = ["Decoder"]


@dataclass(frozen=True, slots=True)
class _Encoded:
    """An encoded image of a request; as text what messages call it."""

    number: int
    content: bytes

    @property
    def name(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return f"image[{self.number}]"

    def read_bytes(self) -> bytes:
        if len(self.content) > MAX_BYTES:
            raise DataError(f"{self}: more than {MAX_BYTES} bytes, which no image has")
        return self.content


class Decoder:
    """Decodes and prepares images of several requests at once, in threads that stay."""

    def __init__(self, preprocess: Preprocess, workers: int | None = None) -> None:
        """For a bundle's preprocessing; one thread for each usable core unless given."""
        self._preprocess = preprocess
        self._pool = ThreadPoolExecutor(
            workers or usable_cores(), thread_name_prefix="vptkit-decode"
        )

    def decode(self, requests: Sequence[Sequence[bytes]]) -> list[NDArray[np.uint8] | DataError]:
        """Encoded images of each request → uint8 [B, H, W, 3], or what is wrong with the first bad one."""
        waiting = [
            [self._pool.submit(self._one, _Encoded(i, content)) for i, content in enumerate(images)]
            for images in requests
        ]
        found: list[NDArray[np.uint8] | DataError] = []
        for futures in waiting:
            images, bad = [], None
            for future in futures:
                one = future.result()
                if isinstance(one, DataError):
                    bad = bad or one
                else:
                    images.append(one)
            found.append(bad or self._stacked(images))
        return found

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _stacked(self, images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        height, width = self._preprocess.size
        return np.stack(images) if images else np.empty((0, height, width, 3), np.uint8)

    def _one(self, image: _Encoded) -> NDArray[np.uint8] | DataError:
        try:
            if not image.content:
                return DataError(f"{image}: empty, expected an encoded image, as of a JPEG file")
            return pixels_of(image, self._preprocess)
        except DataError as error:
            return error
        except MemoryError:
            return DataError(f"{image}: not enough memory to resize it")
