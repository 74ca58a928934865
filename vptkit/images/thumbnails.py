"""Small pictures of images, inside the page: `data:` URIs of a few kB each."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from vptkit.errors import DataError

from .image_file import open_image

if TYPE_CHECKING:
    from .image_file import ImageFile

__all__ = ["thumbnail"]

_SIDE = 160  # pixels, at most
_QUALITY = 80


def thumbnail(image: ImageFile, *, inside: str | None = None) -> str | None:
    """A JPEG as a `data:` URI, upright and whole; None of an image that cannot be read.

    It is made of the pixels alone: what else a file holds (a place, a camera, a comment) stays behind.

    Args:
        image: the file.
        inside: of `vptkit.datasets.dataset_bounds.inside_of`.
    """
    try:
        small = open_image(image, inside=inside).convert("RGB")
    except DataError:
        return None
    small.thumbnail((_SIDE, _SIDE))
    small.info.clear()
    written = io.BytesIO()
    small.save(written, format="JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"
