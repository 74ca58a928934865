"""What an image file is: found, decoded, upright, RGB, and of a sane size.

Tuning and inference share this room, so that both see the same pixels. An EXIF orientation is
applied (a photograph held upright is upright here too); alpha is dropped and palette, grey and CMYK
become RGB by Pillow's own conversion, which is what timm's data loader does. What is deeper than 8
bits is scaled (`vptkit.decoding.deep_modes`), which timm's does not. Pillow stands inside the
functions: sessions import this file, and run on prepared pixels without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

from vptkit.decoding.decoding_costs import Cost, decoding_cost
from vptkit.decoding.deep_modes import eight_bits
from vptkit.decoding.first_bytes import what_it_is
from vptkit.decoding.image_formats import FORMATS, is_image, readable_formats
from vptkit.errors import DataError
from vptkit.regular_files import is_folder, open_regular, read_regular

from .split_names import split_of_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

__all__ = [
    "FORMATS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "ImageFile",
    "Listing",
    "PackedImage",
    "RecalledImage",
    "class_folders",
    "digest_of_image",
    "encoded",
    "folders_in",
    "image_files",
    "is_utf8",
    "kind_of_file",
    "list_images",
    "open_image",
    "opened_image",
    "rgb_of",
    "spelled",
    "turn_of",
    "upright_rgb",
    "walk_images",
]

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
_LONGEST_SUFFIX = 12
MAX_PIXELS = 89_478_485  # Pillow's own bound for "this may be a decompression bomb"
MAX_BYTES = 512 << 20  # of an encoded image; so many pixels of 16 bits, not compressed
# Larger images are decoded one at a time, whatever the number of threads: each takes up to 1.4 GB.
_LARGE_PIXELS = 40_000_000
_one_large = threading.Lock()


class ImageFile(Protocol):
    """An encoded image: a Path, or what is read like one: a part of a larger file, an object in a store.

    As text it is what messages and outputs call it: the same whenever it is looked up, and of no other
    image. Small, and can be sent to another process.
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
        if self.size > MAX_BYTES:
            raise DataError(f"{self}: more than {MAX_BYTES} bytes, which no image has")
        with open_regular(self.file, DataError) as archive:
            archive.seek(self.offset)
            content = archive.read(self.size)
        if len(content) < self.size:
            raise DataError(f"{self}: the archive ends within this image")
        return content


@dataclass(frozen=True, slots=True)
class RecalledImage:
    """An image of which an earlier run kept what it is called, and not where it lies.

    Attributes:
        title: what messages and outputs call it.
        name: without folders.
    """

    title: str
    name: str

    def __str__(self) -> str:
        return self.title

    def read_bytes(self) -> bytes:
        """There are none.

        Raises:
            DataError: always.
        """
        raise DataError(f"{self}: was read by an earlier run, which kept its name alone")


class Listing(NamedTuple):
    """What lies below a folder.

    Attributes:
        images: the image files, sorted by path.
        skipped: what is none, by its suffix in small letters ("no suffix", "other" for what is too
            long to be one), and how many "folder not readable".
    """

    images: list[Path]
    skipped: Counter[str]


def encoded(image: ImageFile, *, inside: str | None = None) -> bytes:
    """The bytes of an image that a stranger may have placed: a regular file, of a sane size.

    Args:
        image: to be read.
        inside: of `vptkit.datasets.dataset_bounds.inside_of`, if it is of a data set.

    Raises:
        DataError: it is not there, may not be read, is a FIFO or a device, has more than
            MAX_BYTES, or lies elsewhere.
    """
    if isinstance(image, Path):
        return read_regular(image, DataError, limit=MAX_BYTES, inside=inside)
    return image.read_bytes()


def open_image(path: ImageFile, *, inside: str | None = None) -> Image.Image:
    """Decode one image to upright RGB.

    This is the only place where Pillow opens files. Of several pictures in a file the first is
    taken.

    Args:
        path: the image.
        inside: of `vptkit.datasets.dataset_bounds.inside_of`, if it is of a data set.

    Raises:
        DataError: the file is missing, is none of FORMATS, truncated, larger than MAX_PIXELS or
            MAX_BYTES, as much work as that, or lies elsewhere; or the decoder failed, whatever it
            raised.
    """
    with opened_image(path, inside=inside) as image:
        return upright_rgb(image, path)


@contextlib.contextmanager
def opened_image(path: ImageFile, *, inside: str | None = None) -> Iterator[Image.Image]:
    """An image whose header was read, and whose pixels were not: of a sane size, to be decoded inside.

    Args:
        path, inside: of `open_image`.

    Raises:
        DataError: see `open_image`; also for what a decoder raises inside.
    """
    from PIL import Image

    with (
        _named(path),
        _stream(path, inside) as stream,
        Image.open(stream, formats=readable_formats()) as image,
    ):
        cost = _require_sane_size(image, stream, path)
        with _one_large if cost > _LARGE_PIXELS else contextlib.nullcontext():
            yield image


def rgb_of(image: Image.Image, name: object) -> Image.Image:
    """An image that somebody opened, as `open_image` gives it: upright RGB. It stays as it is.

    Args:
        image: of any mode, loaded or not; of several pictures the one that it stands at.
        name: what messages call it.

    Raises:
        DataError: larger than MAX_PIXELS, closed, truncated, or broken in another way.
    """
    with _named(name):
        if min(image.size) < 1:
            raise DataError(f"{name}: the image has no pixels")
        if image.width * image.height > MAX_PIXELS:
            raise DataError(
                f"{name}: {image.width} x {image.height} pixels is more than {MAX_PIXELS:,}. "
                "Shrink the image first."
            )
        return upright_rgb(image, name)


@contextlib.contextmanager
def _named(name: object) -> Iterator[None]:
    """Whatever Pillow raises of an image, as a DataError that names it."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except DataError:
        raise
    except UnidentifiedImageError as error:
        kind = what_it_is(name)
        why = f": {kind}" if kind else ""
        raise DataError(
            f"{name}: not an image that Pillow can read as one of {', '.join(FORMATS)}{why}"
        ) from error
    except (Image.DecompressionBombError, Warning) as error:  # warnings may be errors
        raise DataError(f"{name}: {error}") from error
    except MemoryError as error:
        raise DataError(f"{name}: not enough memory to decode it") from error
    except Exception as error:
        # Decoders of damaged files raise what happens to occur to them, down to RecursionError.
        reason = f"{error}" or type(error).__name__
        raise DataError(f"{name}: the image is broken: {reason}") from error


def digest_of_image(image: ImageFile, *, inside: str | None = None) -> bytes:
    """SHA-256 of the encoded image.

    Args:
        image, inside: of `encoded`.

    Raises:
        DataError: it cannot be read.
    """
    return hashlib.sha256(encoded(image, inside=inside)).digest()


def image_files(folder: Path) -> list[Path]:
    """The images of `list_images`."""
    return list_images(folder).images


def list_images(folder: Path) -> Listing:
    """All image files below a folder, and what was passed over; hidden files are in neither.

    What is one `vptkit.decoding.image_formats.is_image` says: an ending of such a format, or the first bytes.

    Links to folders are not followed below `folder`. Links to files that are not there are
    listed, and so are FIFOs and devices: whoever opens one says so.

    Raises:
        DataError: the folder does not exist, or one below may not be read.
    """
    skipped: Counter[str] = Counter()
    return Listing(list(walk_images(folder, skipped)), skipped)


def walk_images(folder: Path, skipped: Counter[str]) -> Iterator[Path]:
    """The same one by one, sorted by path: of each folder on the way down the names are in memory.

    Args:
        folder: where they lie.
        skipped: what is passed over is counted there on the way.

    Raises:
        DataError: see `list_images`.
    """
    if not is_folder(folder):
        raise DataError(f"{folder}: no such folder")
    # Not recursive: folders may be nested deeper than Python's stack is.
    waiting = [(folder, *_entries(folder, skipped, top=True))]
    while waiting:
        place, names, inner = waiting[-1]
        if not names:
            waiting.pop()
            continue
        name = names.pop()
        if name in inner:
            waiting.append((place / name, *_entries(place / name, skipped, top=False)))
        else:
            yield place / name


def _entries(place: Path, skipped: Counter[str], *, top: bool) -> tuple[list[str], set[str]]:
    """What is walked, the last first, and which of it are folders; none of a folder closed to us.

    In a folder there may be a million: no more than their names is kept.
    """
    try:
        inner, images, others = _listed(place)
    except PermissionError as error:
        if top:
            raise DataError(f"{place}: cannot be read: {error.strerror}") from error
        skipped["folder not readable"] += 1  # as lost+found of a disk
        return [], set()
    except OSError as error:
        raise DataError(f"{place}: cannot be read: {error.strerror}") from error
    skipped.update(others)
    images.extend(inner)
    images.sort(reverse=True)
    return images, set(inner)


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, sorted; links to folders count, hidden ones do not.

    Raises:
        DataError: there is no such folder, or it may not be read.
    """
    if not is_folder(folder):
        raise DataError(f"{folder}: no such folder")
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if not e.name.startswith(".") and _is_folder(e))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error
    return [folder / name for name in names]


def class_folders(
    folder: Path, *, fewest: int = 2, empty_ones: bool = False
) -> dict[str, list[Path]]:
    """Class name → its image files, for a folder with one folder per class.

    Args:
        folder: that folder.
        fewest: classes that there must be; 1 where they are only judged, 0 where perhaps nothing is.
        empty_ones: there may be classes without images, which are left out.

    Raises:
        DataError: no such folder, no class folders, only one class, a class without images, or one
            that holds splits.
    """
    names = [path.name for path in folders_in(folder)]
    if not names and fewest:
        raise DataError(f"{folder}: empty: expected one folder per class, each with images")
    if odd := [name for name in names if not is_utf8(name)]:
        raise DataError(f"{folder / odd[0]}: its name is not UTF-8; rename the class")
    for name in names:
        _require_no_splits(folder / name)
    classes: dict[str, list[Path]] = {}
    for name in sorted(names, key=spelled):
        classes.setdefault(spelled(name), []).extend(image_files(folder / name))
    empty = [name for name, files in classes.items() if not files]
    if empty and not (empty_ones and (len(empty) < len(classes) or not fewest)):
        raise DataError(
            f"{folder}: no images in the class folder {empty[0]!r}"
            f" (looked for {', '.join(readable_formats())})"
        )
    if len(classes) < fewest:
        raise DataError(
            f"{folder}: only one class, {next(iter(classes))!r}: expected at least two class folders. To tell "
            "it from the rest, put other pictures into a second one, as other/"
        )
    return {name: files for name, files in classes.items() if files}


def _require_no_splits(folder: Path) -> None:
    """Refuse a class that holds train/ or the like: these are no images of one class.

    Raises:
        DataError: it does; says what to pass instead.
    """
    inner = [path for path in folders_in(folder) if split_of_name(path.name)]
    if not inner:
        return
    held = " and ".join(f"{path.name}/" for path in inner[:2])
    if any(folders_in(path) for path in inner):
        raise DataError(f"one level too high: {folder} holds {held} itself; pass {folder}")
    raise DataError(
        f"{folder}: a class folder that holds {held}: expected the splits first and the classes in "
        f"them, as {folder.parent / inner[0].name / folder.name}"
    )


def spelled(name: str) -> str:
    """A class's name as Unicode composes it (NFC).

    macOS writes a letter and its accent apart, others together; to people these are one name.
    """
    return unicodedata.normalize("NFC", name)


def is_utf8(text: str) -> bool:
    """Whether it can be written: Python reads a name that is not UTF-8 as halves of surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _listed(folder: Path) -> tuple[list[str], list[str], Counter[str]]:
    """The names of the folders, of the images and what else is in a folder, hidden ones left out."""
    folders, images, others = [], [], Counter[str]()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif _is_folder(entry):
                others["link to a folder"] += 1
            elif is_image(path):
                images.append(entry.name)
            else:
                others[kind_of_file(path)] += 1
    return folders, images, others


def kind_of_file(path: Path) -> str:
    """What is counted of a file that is no image: its suffix, as `Listing.skipped` has it."""
    suffix = path.suffix.lower()
    return "other" if len(suffix) > _LONGEST_SUFFIX else suffix or "no suffix"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; no for a link that goes in a circle."""
    return entry.is_dir(follow_symlinks=False) or (
        entry.is_symlink() and is_folder(Path(entry.path))
    )


def _stream(image: ImageFile, inside: str | None) -> BinaryIO:
    """A file is not read into memory before it is decoded, which takes longer."""
    if isinstance(image, Path):
        return open_regular(image, DataError, limit=MAX_BYTES, inside=inside)
    return io.BytesIO(image.read_bytes())


def turn_of(image: Image.Image) -> str | None:
    """What turns an image upright, one of Pillow's `Transpose`, by its EXIF orientation."""
    return _TURNS.get(image.getexif().get(_ORIENTATION, 1))


def upright_rgb(image: Image.Image, name: object) -> Image.Image:
    """Decode what `opened_image` or somebody else opened; the image stays as it is.

    Args:
        image: of any mode.
        name: what messages call it.

    Returns:
        Upright RGB: the image itself where it is that (a copy of 12 megapixels takes a third of the
        time of decoding them), so it must not be written to.

    Raises:
        DataError: of a mode that has no meaning here. Of a broken one whatever the decoder raises.
    """
    from PIL import Image

    image.load()
    turn = turn_of(image)
    image = eight_bits(image, name)
    if turn is not None:
        image = image.transpose(Image.Transpose[turn])
    if "transparency" in image.info:  # convert drops it too, but with a warning
        image = image.copy()
        del image.info["transparency"]
    return image if image.mode == "RGB" else image.convert("RGB")


def _require_sane_size(image: Image.Image, stream: BinaryIO, path: ImageFile) -> int:
    """What decoding will cost, in pixels of an ordinary image."""
    if min(image.size) < 1:
        raise DataError(f"{path}: the image has no pixels")
    size, cost = f"{image.width} x {image.height} pixels", Cost(image.width * image.height, "")
    if cost.pixels <= MAX_PIXELS:
        cost = decoding_cost(image, stream, MAX_PIXELS)
    if cost.pixels > MAX_PIXELS:
        what = f"{size} {cost.why}, as much work as {cost.pixels:,}," if cost.why else size
        raise DataError(
            f"{path}: {what} is more than {MAX_PIXELS:,}; that may be a decompression bomb. Shrink "
            "the image first."
        )
    return cost.pixels
