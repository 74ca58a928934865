"""What an image file is: found, decoded, upright, RGB, and of a sane size.

Tuning and inference share this room, so that both see the same pixels. An EXIF orientation is
applied (a photograph held upright is upright here too); alpha is dropped and palette, grey and CMYK
become RGB by Pillow's own conversion, which is what timm's data loader does. Pillow stands inside
the functions: sessions import this file, and run on prepared pixels without it.
"""

from __future__ import annotations

import hashlib
import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vptkit.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "ImageFile",
    "PackedImage",
    "class_folders",
    "digest_of_image",
    "image_files",
    "open_image",
]

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
_ORIENTATION = 0x0112
# What turns an image upright, by its EXIF orientation; ImageOps.exif_transpose would also rewrite
# the other EXIF fields, and fail on damaged ones.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
MAX_PIXELS = 89_478_485  # Pillow's own bound for "this may be a decompression bomb"


class ImageFile(Protocol):
    """An encoded image: a Path, or a part of a larger file that is read like one.

    As text it is what messages call it.
    """

    @property
    def name(self) -> str:
        """Its name without folders."""

    def read_bytes(self) -> bytes:
        """The encoded image."""


@dataclass(frozen=True, slots=True)
class PackedImage:
    """An image in an archive that is not compressed.

    Attributes:
        file: the archive.
        name: of the image in there, without folders.
        offset, size: its bytes.
    """

    file: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"

    def read_bytes(self) -> bytes:
        """The encoded image.

        Raises:
            DataError: the archive is not there, or shorter than it was.
        """
        try:
            with self.file.open("rb") as archive:
                archive.seek(self.offset)
                content = archive.read(self.size)
        except OSError as error:
            raise DataError(f"{self}: {error.strerror}") from error
        if len(content) < self.size:
            raise DataError(f"{self}: the archive ends within this image")
        return content


def open_image(path: ImageFile) -> Image.Image:
    """Decode one image to upright RGB.

    Raises:
        DataError: the file is missing, not an image, truncated, or larger than MAX_PIXELS.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        place = path if isinstance(path, Path) else io.BytesIO(path.read_bytes())
        with Image.open(place) as image:
            _require_sane_size(image, path)
            image.load()
            image.info.pop("transparency", None)  # convert drops it anyway, but with a warning
            return _upright(image).convert("RGB")
    except DataError:
        raise
    except (Image.DecompressionBombError, Warning) as error:  # warnings may be errors
        raise DataError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image that Pillow can read") from error
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        LookupError,
        TypeError,
        struct.error,
    ) as error:
        raise DataError(f"{path}: the image is broken: {error}") from error


def digest_of_image(image: ImageFile) -> bytes:
    """SHA-256 of the encoded image.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return hashlib.sha256(image.read_bytes()).digest()
    except OSError as error:
        raise DataError(f"{image}: {error.strerror}") from error


def image_files(folder: Path) -> list[Path]:
    """All image files below a folder, sorted by path; hidden ones are left out.

    Links to folders are not followed below `folder`. Links to files that are not there are
    listed: whoever opens one says so.

    Raises:
        DataError: the folder does not exist.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def class_folders(folder: Path) -> dict[str, list[Path]]:
    """Class name → its image files, for a folder with one folder per class.

    Raises:
        DataError: no class folders, only one class, or a class without images.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise DataError(f"{folder}: empty: expected one folder per class, each with images")
    classes = {name: image_files(folder / name) for name in names}
    empty = [name for name, files in classes.items() if not files]
    if empty:
        raise DataError(
            f"{folder}: no images in the class folder {empty[0]!r}"
            f" (looked for {' '.join(sorted(IMAGE_SUFFIXES))})"
        )
    if len(names) == 1:
        raise DataError(
            f"{folder}: only one class, {names[0]!r}: expected at least two class folders"
        )
    return classes


def _upright(image: Image.Image) -> Image.Image:
    from PIL import Image

    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    return image if turn is None else image.transpose(Image.Transpose[turn])


def _require_sane_size(image: Image.Image, path: ImageFile) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"{path}: {image.width} x {image.height} pixels is more than {MAX_PIXELS:,}; "
            "that may be a decompression bomb. Shrink the image first."
        )
    if min(image.size) < 1:
        raise DataError(f"{path}: the image has no pixels")
