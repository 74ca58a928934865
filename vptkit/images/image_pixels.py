"""An image file → the pixels that a graph takes: what inference, judging and calibration read.

Decoding is "exact", or "fast": a JPEG is then decoded at 1/2, 1/4 or 1/8 of its size, which libjpeg does on
the way (it leaves out the high frequencies of each block), as long as that is at least `_SPARE` times what
the picture is resized to. The rest is timm's own arithmetic, so a picture that is not much larger than the
graph's input, or is no JPEG, is the same to the bit. How far the two are apart is
measured in docs/benchmarks.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .image_file import open_image, opened_image, turn_of, upright_rgb
from .preprocess import prepare, resized

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from .image_file import ImageFile
    from .preprocess import Preprocess

    Box = tuple[float, float, float, float]

__all__ = ["DecodedImage", "decoded_image", "pixels_of"]

_SPARE = 2
_SMALLER = (8, 4, 2)  # what libjpeg divides by
_SWAPPED = ("TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")  # turns that exchange the sides


class DecodedImage(NamedTuple):
    """A picture before it is resized.

    Attributes:
        image: upright RGB.
        whole, box: of `prepare`, where it is a smaller copy of the picture.
    """

    image: Image.Image
    whole: tuple[int, int] | None = None
    box: Box | None = None


def pixels_of(
    image: ImageFile, preprocess: Preprocess, *, inside: str | None = None
) -> NDArray[np.uint8]:
    """Decode, turn upright, resize and crop one image.

    Args:
        image: the file.
        preprocess: size, filter, crop, and how to decode.
        inside: of `vptkit.datasets.dataset_bounds.inside_of`, if it is of a data set.

    Returns:
        uint8 [H, W, 3].

    Raises:
        DataError: it cannot be read (`vptkit.images.image_file.open_image`), or is so long and thin
            that it would be huge when resized.
        MemoryError: there is none to resize it.
    """
    found = decoded_image(image, preprocess, inside=inside)
    return prepare(found.image, preprocess, image, whole=found.whole, box=found.box)


def decoded_image(
    image: ImageFile, preprocess: Preprocess, *, inside: str | None = None
) -> DecodedImage:
    """The first half of `pixels_of`: decode and turn upright; `prepare` is the other.

    Args:
        image, preprocess, inside: of `pixels_of`.

    Raises:
        DataError: it cannot be read (`vptkit.images.image_file.open_image`).
    """
    if preprocess.decode == "exact":
        return DecodedImage(open_image(image, inside=inside))
    with opened_image(image, inside=inside) as file:
        whole, turn = file.size, turn_of(file)
        box = _shrink(file, preprocess, swapped=turn in _SWAPPED)
        upright = upright_rgb(file, image)
    if box is None:
        return DecodedImage(upright)
    whole = whole[::-1] if turn in _SWAPPED else whole
    return DecodedImage(upright, whole, _turned(box, file.size, turn))


def _shrink(file: Image.Image, preprocess: Preprocess, *, swapped: bool) -> Box | None:
    """Let a file be decoded smaller, if its format can and it is large enough.

    Returns:
        The part of the smaller picture that is the picture (its sides are rounded up), as it lies in
        the file, or None: it is decoded as it is.
    """
    width, height = file.size
    target = resized((height, width) if swapped else (width, height), preprocess)
    wanted = target[::-1] if swapped else target
    room = min(width // (_SPARE * wanted[0]), height // (_SPARE * wanted[1]))
    by = next((n for n in _SMALLER if n <= room), 1)
    if by == 1:
        return None
    if file.format not in ("JPEG", "MPO") or file.draft(None, (width // by, height // by)) is None:
        return None
    return 0, 0, width / by, height / by


def _turned(box: Box, size: tuple[int, int], turn: str | None) -> Box:
    """Where a part of a picture of (W, H) lies when the picture is turned."""
    (left, upper, right, lower), (width, height) = box, size
    x, y = (left, right), (upper, lower)
    x_back, y_back = (width - right, width - left), (height - lower, height - upper)
    across, down = {
        "FLIP_LEFT_RIGHT": (x_back, y),
        "ROTATE_180": (x_back, y_back),
        "FLIP_TOP_BOTTOM": (x, y_back),
        "TRANSPOSE": (y, x),
        "ROTATE_270": (y_back, x),
        "TRANSVERSE": (y_back, x_back),
        "ROTATE_90": (y, x_back),
    }.get(turn or "", (x, y))
    return across[0], down[0], across[1], down[1]
