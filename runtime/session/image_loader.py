"""Images → prepared pixels, decoded by a few threads, in order, never far ahead."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from vptkit.devices.probes.machine import usable_cores
from vptkit.errors import DataError
from vptkit.images.image_pixels import pixels_of
from vptkit.images.preprocess import prepare

from .image_inputs import HeldImage

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from vptkit.images.image_file import ImageFile
    from vptkit.images.preprocess import Preprocess

__all__ = ["Decoded", "decoded"]

Source = TypeVar("Source", bound="ImageFile | HeldImage")
# A file and its pixels, uint8 [H, W, 3], or the reason why there are none.
Decoded = tuple[Source, "NDArray[np.uint8] | DataError"]


def decoded(
    paths: Iterable[Source],
    preprocess: Preprocess,
    *,
    workers: int | None = None,
    read_ahead: int = 32,
    inside: str | None = None,
) -> Generator[Decoded[Source], None, None]:
    """Decode and prepare images in parallel; a broken one is returned as its error.

    Args:
        paths: image files, or images in memory; taken one by one, so they may be endless.
        preprocess: the target size, filter and crop share, and how to decode.
        workers: decoding threads, one for each usable core unless given.
        read_ahead: images that may be decoded before they are asked for; bounds the memory. With 0
            an image is done before the next one is taken.
        inside: of `vptkit.datasets.dataset_bounds.inside_of`, if they are a data set.

    Yields:
        The path and uint8 [H, W, 3] or a DataError, in the order of the paths.
    """
    pool = ThreadPoolExecutor(workers or usable_cores(), thread_name_prefix="vptkit-decode")
    waiting: deque[Future[Decoded[Source]]] = deque()
    try:
        for path in paths:
            waiting.append(pool.submit(_decode_one, path, preprocess, inside))
            if len(waiting) > read_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _decode_one(path: Source, preprocess: Preprocess, inside: str | None) -> Decoded[Source]:
    try:
        if isinstance(path, HeldImage):
            return path, prepare(path.rgb(), preprocess, path)
        return path, pixels_of(path, preprocess, inside=inside)
    except DataError as error:
        return path, error
    except MemoryError:
        return path, DataError(f"{path}: not enough memory to resize it")
