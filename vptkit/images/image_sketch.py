"""Which images something was trained on, in few bytes: so that copies of them are known again.

A sketch is the beginnings of the images' SHA-256, sorted; of many images the smallest ones alone, which are
a random sample of them (a bottom-k sketch, Cohen and Kaplan, PODC 2007). The images themselves cannot be
made of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .image_file import digest_of_image

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .image_file import ImageFile

__all__ = ["count_known", "sketch_of"]

_MOST = 4096  # images; 40 kB
_LETTERS = 10  # of an image: by chance one of 10^5 is taken for one of 4096 once in 2700 times


def sketch_of(images: Iterable[ImageFile], *, inside: str | None = None) -> str:
    """The sketch of some images: hexadecimal digits, ten an image.

    Args:
        images, inside: of `vptkit.images.image_file.digest_of_image`.

    Raises:
        DataError: an image cannot be read.
    """
    return "".join(sorted(_beginnings(images, inside))[:_MOST])


def count_known(images: Iterable[ImageFile], sketch: object, *, inside: str | None = None) -> int:
    """How many images are among those of a sketch; of a sketch of a sample, at least so many.

    Args:
        images, inside: of `vptkit.images.image_file.digest_of_image`.
        sketch: as `sketch_of` makes it; a stranger may have written it, and then none is known.

    Raises:
        DataError: an image cannot be read.
    """
    form = rf"(?:[0-9a-f]{{{_LETTERS}}}){{1,{_MOST}}}"
    if not isinstance(sketch, str) or not re.fullmatch(form, sketch):
        return 0
    known = {sketch[i : i + _LETTERS] for i in range(0, len(sketch), _LETTERS)}
    return len(known & _beginnings(images, inside))


def _beginnings(images: Iterable[ImageFile], inside: str | None) -> set[str]:
    return {digest_of_image(image, inside=inside).hex()[:_LETTERS] for image in images}
