"""Images of more than 8 bits a pixel: scaled by what their numbers mean, or refused; never clipped.

Pillow's own conversion takes 16-bit grey as if it ended at 255: nearly all of it becomes white. What the
largest number stands for is said by the format. Where it is not, nobody knows what is white:

| Pillow's mode | black and white | why |
| --- | --- | --- |
| I;16, I;16L, I;16B, I;16N | 0 and 65,535 | PNG; TIFF 6.0, BitsPerSample; JPEG 2000, which Pillow scales so |
| the same, of a TIFF of 12 bits | 0 and 4,095 | TIFF 6.0, BitsPerSample |
| I, of a PNG or a PPM | 0 and 65,535 | older Pillows for PNG; PPM is scaled so by Pillow |
| F | 0 and 1 | the custom of TIFF and PFM; other numbers are refused |
| I of anything else | | 32-bit numbers are counts, labels or heights: refused |

Of colours with 16 bits each (PNG, TIFF, JPEG 2000, AVIF) Pillow itself keeps the upper 8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vptkit.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["eight_bits"]

_WHITE = 255
_SIXTEEN = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_SCALED_TO_16 = ("PNG", "PPM")  # formats that Pillow has as mode I though they have 16 bits
_PHOTOMETRIC, _BITS = 262, 258  # tags of TIFF 6.0
_WHITE_IS_ZERO = 0
_CURE = "Convert it to 8 or 16 bits, with black at 0 and white at the largest number."


def eight_bits(image: Image.Image, name: object) -> Image.Image:
    """An image with 8 bits a channel: itself, if it has no more; else grey (mode L).

    Args:
        image: loaded.
        name: what messages call it.

    Raises:
        DataError: nothing says what its numbers mean, or they lie outside of what they may be.
    """
    if image.mode in _SIXTEEN:
        return _scaled(image, name, (1 << _depth(image)) - 1)
    if image.mode == "I":
        if image.format in _SCALED_TO_16:
            return _scaled(image, name, 65_535)
        raise DataError(
            f"{name}: {_numbers(image)} integers (mode I), of which nothing says how large white is. "
            f"{_CURE}"
        )
    return _of_floats(image, name) if image.mode == "F" else image


def _depth(image: Image.Image) -> int:
    """Bits that a number of an image of 16 bits uses."""
    bits = getattr(image, "tag_v2", {}).get(_BITS, (16,))
    return 12 if tuple(bits) == (12,) else 16


def _scaled(image: Image.Image, name: object, largest: int) -> Image.Image:
    """Whole numbers from 0 to `largest`, rounded to the nearest of 256 levels."""
    import numpy as np
    from PIL import Image

    numbers = np.asarray(image)  # uint16, or int32 of mode I
    least, most = int(numbers.min()), int(numbers.max())
    if least < 0 or most > largest:
        raise DataError(
            f"{name}: its numbers go from {least} to {most}, expected 0 to {largest}. {_CURE}"
        )
    levels = (np.arange(largest + 1, dtype=np.int64) * (2 * _WHITE) + largest) // (2 * largest)
    return Image.fromarray(_turned(image, levels.astype(np.uint8))[numbers])


def _of_floats(image: Image.Image, name: object) -> Image.Image:
    import numpy as np
    from PIL import Image

    numbers = np.asarray(image)
    least, most = float(numbers.min()), float(numbers.max())
    if not (least >= 0 and most <= 1):  # also NaN
        raise DataError(
            f"{name}: floating-point numbers (mode F) from {least:g} to {most:g}, of which nothing says "
            f"how large white is, expected 0 to 1. {_CURE}"
        )
    levels = np.rint(numbers * np.float32(_WHITE)).astype(np.uint8)
    return Image.fromarray(_turned(image, np.arange(256, dtype=np.uint8))[levels])


def _turned(image: Image.Image, levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The levels, from white to black where 0 is white: Pillow turns such TIFFs up to 8 bits alone."""
    photometric = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC)
    return _WHITE - levels if photometric == _WHITE_IS_ZERO else levels


def _numbers(image: Image.Image) -> str:
    bits = getattr(image, "tag_v2", {}).get(_BITS, (32,))
    return f"{bits[0]}-bit"
