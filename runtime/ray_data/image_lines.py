"""An image of a run as a line of text, and back: where it lies, so that any machine can read it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.errors import DataError
from vptkit.runtime.inputs.lookup import LostImage
from vptkit.runtime.inputs.row_images import RowImage
from vptkit.runtime.inputs.tar_images import TarImage
from vptkit.runtime.stores.stored_image import StoredImage

if TYPE_CHECKING:
    from vptkit.images.image_file import ImageFile

__all__ = ["image_of", "line_of_image"]

# Small dataclasses of texts, numbers and paths.
_KINDS: dict[str, type[Any]] = {"tar": TarImage, "row": RowImage, "lost": LostImage}


def line_of_image(image: ImageFile) -> bytes:
    """JSON in ASCII, in which names that are not UTF-8 and line ends come back as they were.

    Raises:
        DataError: it lies nowhere that another machine could read.
    """
    return json.dumps(_document(image), separators=(",", ":")).encode("ascii") + b"\n"


def image_of(line: bytes) -> ImageFile:
    """What `line_of_image` made the line of."""
    document = json.loads(line)
    if isinstance(document, str):
        return Path(document)
    kind, fields = document
    if kind == "stored":
        return StoredImage(*fields)
    found: ImageFile = _KINDS[kind](*map(_value, fields))
    return found


def _document(image: ImageFile) -> Any:
    if isinstance(image, Path):
        return str(image)
    if isinstance(image, StoredImage):
        return ["stored", [image.address, image.size]]
    for kind, made in _KINDS.items():
        if isinstance(image, made):
            fields = (getattr(image, field.name) for field in dataclasses.fields(made))
            return [kind, [[str(one)] if isinstance(one, Path) else one for one in fields]]
    raise DataError(f"{image}: --ray-address takes images that lie in files or stores")


def _value(field: Any) -> Any:
    """A path, which is written as a list of one text; anything else is itself."""
    return Path(field[0]) if isinstance(field, list) else field
