"""Images → prepared pixels, decoded by a few threads, in order, never far ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from vptkit.devices.probes.machine import usable_cores
from vptkit.errors import DataError
from vptkit.images.image_pixels import pixels_of
from vptkit.images.preprocess import prepare

from .image_inputs import HeldImage
from .ordered_work import in_order

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

    Returns:
        The path and uint8 [H, W, 3] or a DataError, in the order of the paths.
    """
    return in_order(
        lambda path: _decode_one(path, preprocess, inside),
        paths,
        threads=workers or usable_cores(),
        ahead=read_ahead,
        name="vptkit-decode",
    )


def _decode_one(path: Source, preprocess: Preprocess, inside: str | None) -> Decoded[Source]:
    try:
        if isinstance(path, HeldImage):
            return path, prepare(path.rgb(), preprocess, path)
        return path, pixels_of(path, preprocess, inside=inside)
    except DataError as error:
        return path, error
    except MemoryError:
        return path, DataError(f"{path}: not enough memory to resize it")
