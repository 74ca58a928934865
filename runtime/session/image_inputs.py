"""What `predict` is given → images, one by one: names of files, Pillow's images, RGB arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import DataError
from vptkit.images.image_file import MAX_PIXELS, rgb_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from vptkit.images.image_file import ImageFile

    One = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]

__all__ = ["FoundImages", "HeldImage", "inputs_of", "is_live"]

_WANTED = (
    "expected a path, a folder or a glob, an image of Pillow, or a uint8 array, RGB, of [H, W, 3] "
    "or [B, H, W, 3]"
)


@dataclass(frozen=True, slots=True)
class FoundImages:
    """Files that were looked up already: taken one by one as they are wanted, and not live.

    Attributes:
        files: each once.
    """

    files: Iterable[ImageFile]


if TYPE_CHECKING:
    # To a type checker a list of several kinds is one of objects; what they are is seen in `_images`.
    Sources = One | Iterable[object] | FoundImages


@dataclass(frozen=True, slots=True)
class HeldImage:
    """An image that is in memory.

    Attributes:
        number: among all images of the call, from 0.
        content: an image of Pillow, or uint8 [H, W, 3], RGB.
    """

    number: int
    content: Image.Image | NDArray[np.uint8]

    def __str__(self) -> str:
        return f"images[{self.number}]"

    def rgb(self) -> Image.Image:
        """Upright RGB, as of a file.

        Raises:
            DataError: see `vptkit.images.image_file.rgb_of`.
        """
        from PIL import Image

        content: Any = self.content
        if isinstance(content, np.ndarray):
            return Image.fromarray(np.ascontiguousarray(content))
        return rgb_of(content, self)


def is_live(sources: Sources) -> bool:
    """Whether images come one by one, perhaps for ever: a generator, a camera of one's own.

    Lists, tuples, sets and arrays are there as a whole.
    """
    whole = (str, os.PathLike, Sequence, Set, np.ndarray)
    return isinstance(sources, Iterable) and not isinstance(sources, whole) and not _odd(sources)


def inputs_of(sources: Sources) -> Iterable[ImageFile | HeldImage]:
    """All images of what is there as a whole, files once each; of what is live, as they come.

    Args:
        sources: a path, a folder, a glob, an image of Pillow, an array; or several of them.

    Raises:
        DataError: of what is there as a whole: a source that does not exist or holds no images, or
            is none of the above. Of what is live this is raised when it comes, and of a path that
            cannot be read whoever opens it says so.
    """
    if isinstance(sources, FoundImages):
        return sources.files
    if is_live(sources):
        return _as_they_come(sources)  # type: ignore[arg-type]
    whole: Any = sources
    several = isinstance(whole, Sequence | Set) and not isinstance(whole, str) and not _odd(whole)
    given = list(whole) if several else [whole]
    if all(isinstance(source, str | os.PathLike) for source in given):
        # Here and below, for boards that only measure have no such room
        from vptkit.runtime.inputs.image_sources import find_images

        return find_images(given)
    found: dict[ImageFile | int, ImageFile | HeldImage] = {}
    for source in given:
        for one in _images(source, len(found)):
            if _is_held(one):
                found[len(found)] = HeldImage(len(found), one)
            else:
                found.setdefault(one, one)
    if not found:
        raise DataError("no images: an array of the shape [0, H, W, 3]")
    return list(found.values())


def _as_they_come(sources: Iterable[object]) -> Iterator[ImageFile | HeldImage]:
    number = 0
    for source in sources:
        try:
            images = list(_images(source, number))
        except DataError:
            if not isinstance(source, str | os.PathLike) or not str(source):
                raise
            images = [Path(source)]  # whoever opens it says what is wrong, and the others go on
        for one in images:
            yield HeldImage(number, one) if _is_held(one) else one
            number += 1


def _images(source: Any, number: int) -> Iterable[Any]:
    """The images of one source; `number` is that of the first, for messages."""
    if isinstance(source, str | os.PathLike):
        if isinstance(os.fspath(source), bytes):
            raise DataError(f"images[{number}]: a path came as bytes, expected text")
        from vptkit.runtime.inputs.image_sources import images_of

        return images_of(source)
    if isinstance(source, np.ndarray):
        return _frames(source, f"images[{number}]")
    if _is_pillow(source):
        return [source]
    raise DataError(f"images[{number}]: came as {_kind(source)}, {_WANTED}{_cure(source)}")


def _frames(array: NDArray[Any], name: str) -> Iterable[NDArray[np.uint8]]:
    """The images of an array: itself, or those of a batch.

    Raises:
        DataError: another type or shape, or more pixels than an image may have.
    """
    shape = list(array.shape)
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or shape[-1] != 3:
        came = f"{array.dtype} {shape}"
        raise DataError(
            f"{name}: came as {came}, expected uint8, RGB, of [H, W, 3] or [B, H, W, 3]"
            f"{_cure_of_array(array)}"
        )
    height, width = shape[-3:-1]
    if not 1 <= height * width <= MAX_PIXELS:
        raise DataError(f"{name}: {width} x {height} pixels, expected 1 to {MAX_PIXELS:,}")
    return [array] if array.ndim == 3 else array


def _cure_of_array(array: NDArray[Any]) -> str:
    """What makes an image of an array that is none."""
    if array.dtype.kind == "f":
        return ". Of values from 0 to 1: (255 * x).round().astype('uint8')"
    if array.dtype.kind in "USO":
        return ". Pass names of files as a list"
    if array.dtype != np.uint8 or array.ndim not in (2, 3, 4):
        return ""
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 1):
        return ". A grey image [H, W]: np.stack([x] * 3, axis=-1)"
    if array.shape[-1] == 4:
        return ". Without its alpha channel: x[..., :3]"
    if array.ndim in (3, 4) and array.shape[-3] == 3:
        return ". Channels last: np.moveaxis(x, -3, -1)"
    return ""


def _is_held(one: object) -> bool:
    """Whether it is an image in memory, and not one that is read."""
    return isinstance(one, np.ndarray) or _is_pillow(one)


def _is_pillow(source: object) -> bool:
    from PIL import Image

    return isinstance(source, Image.Image)


def _odd(source: object) -> bool:
    """Whether it can be iterated, but not over images: a tensor's rows, a file's lines, keys."""
    return (
        isinstance(source, bytes | bytearray | memoryview | Mapping)
        or hasattr(source, "read")
        or (hasattr(source, "shape") and hasattr(source, "dtype"))
        or _is_pillow(source)
    )


def _kind(source: object) -> str:
    kind = type(source).__name__
    return f"{kind} {list(source)[:5]}" if isinstance(source, Mapping) else kind


def _cure(source: object) -> str:
    """What makes images of what is none."""
    if source is None:
        return ". A camera's read() gives None when there are no more frames"
    if isinstance(source, bytes | bytearray | memoryview) or hasattr(source, "read"):
        return ". An encoded image: PIL.Image.open(io.BytesIO(x)), or of a file PIL.Image.open(x)"
    if hasattr(source, "shape") and hasattr(source, "dtype"):
        return ". A tensor: x.numpy() of it, in this type and shape"
    if isinstance(source, Iterable):
        return ". Of several one list, not lists in a list"
    return ""
