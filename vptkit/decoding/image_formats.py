"""The formats that are opened, and which files have one: their first bytes say so, whatever they are called.

An ending of a format that is opened decides for itself: what is behind it is an image, or a broken one, and
whoever opens it says which. Of any other file the head is read (`is_image`): photographs come as x.jpg_large,
or without an ending. 20,000 texts beside as many images took a folder's listing from 1.5 to 2.4 s, on a busy
machine: less than decoding ten of them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
from typing import TYPE_CHECKING, Any

from vptkit.regular_files import head_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FORMATS", "IMAGE_SUFFIXES", "format_of", "is_image", "readable_formats"]

# What people photograph and scan with, and Pillow's module for each. Pillow knows some thirty more, and
# goes by the content: an EPS that is called x.png would start Ghostscript.
FORMATS = {
    "JPEG": "PIL.JpegImagePlugin",
    "MPO": "PIL.MpoImagePlugin",
    "PNG": "PIL.PngImagePlugin",
    "WEBP": "PIL.WebPImagePlugin",
    "AVIF": "PIL.AvifImagePlugin",
    "TIFF": "PIL.TiffImagePlugin",
    "BMP": "PIL.BmpImagePlugin",
    "GIF": "PIL.GifImagePlugin",
    "PPM": "PIL.PpmImagePlugin",
    "JPEG2000": "PIL.Jpeg2KImagePlugin",
}
_HEIF = "HEIF"
_HEIF_PLUGINS = ("pillow_heif", "pi_heif")  # of people who installed one; never of our extras
_OPTIONAL = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}  # parts that a Pillow may lack
# Ending → format. The keys are what names alone can tell.
_SUFFIXES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "JPEG"),
    **dict.fromkeys((".png", ".apng"), "PNG"),
    **dict.fromkeys((".bmp", ".dib"), "BMP"),
    ".gif": "GIF",
    **dict.fromkeys((".pgm", ".ppm", ".pbm", ".pnm"), "PPM"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    ".webp": "WEBP",
    ".avif": "AVIF",
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".jpf", ".jpc"), "JPEG2000"),
    **dict.fromkeys((".heic", ".heif"), _HEIF),
}
_ALWAYS = frozenset(suffix for suffix, name in _SUFFIXES.items() if name not in (*_OPTIONAL, _HEIF))
IMAGE_SUFFIXES = frozenset(_SUFFIXES) - {".heic", ".heif"}
# These begin like images and are none, or not whole: raw photographs and slides of microscopes are
# TIFFs whose first picture is a thumbnail, or far too large; downloads that did not end.
_OTHERS = frozenset(
    [
        ".3fr",
        ".arw",
        ".cr2",
        ".dcr",
        ".dng",
        ".erf",
        ".fff",
        ".iiq",
        ".k25",
        ".kdc",
        ".lsm",
        ".mef",
        ".mos",
        ".ndpi",
        ".nef",
        ".nrw",
        ".orf",
        ".pef",
        ".scn",
        ".sr2",
        ".srf",
        ".srw",
        ".svs",
        ".crdownload",
        ".download",
        ".opdownload",
        ".part",
        ".partial",
        ".tmp",
    ]
)
_HEAD = 64  # bytes
_JPEG2000 = (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes; BM alone begins texts, too
_PPM = re.compile(rb"P(?:[1-6]\s+(?:#[^\n]*\s+)*\d+\s+(?:#[^\n]*\s+)*\d|f\s+\d+\s+\d)")
_AVIF, _HEIC = (b"avif", b"avis"), (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")


def format_of(head: bytes) -> str | None:
    """The format that a file's first 64 bytes begin, one of FORMATS or HEIF; None for another."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF":
        return "WEBP" if head[8:12] == b"WEBP" else None
    if head[4:8] == b"ftyp":
        return _iso_media(head)
    return _older_format(head)


def is_image(path: Path) -> bool:
    """Whether a file is an image, or called one: by its ending, else by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in _ALWAYS:
        return True
    if suffix in _OTHERS:
        return False
    if _SUFFIXES.get(suffix) in readable_formats():
        return True
    return format_of(head_of(path, _HEAD)) in readable_formats()


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """FORMATS that this Pillow reads (MPO comes of its module for JPEG), and HEIF where its plugin is."""
    from PIL import Image, features

    for module in FORMATS.values():
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    found = [name for name in FORMATS if name in Image.OPEN]
    lacking = {name for name, part in _OPTIONAL.items() if not _has(features, part)}
    return (*(name for name in found if name not in lacking), *_heif())


def _has(features: Any, part: str) -> bool:
    """Whether a Pillow was built with a part; an older one does not know of some, and warns if asked."""
    known = (features.modules, features.codecs, features.features)
    return any(part in parts for parts in known) and bool(features.check(part))


def _heif() -> tuple[str, ...]:
    from PIL import Image

    for name in _HEIF_PLUGINS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name).register_heif_opener()
            return (_HEIF,) if _HEIF in Image.OPEN else ()
    return ()


def _iso_media(head: bytes) -> str | None:
    """Of ISO base media (AVIF, HEIC, films): the brand, else those that it is compatible with."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[i : i + 4] for i in range(16, size - 3, 4))]
    if not {brands[0]} & {*_AVIF, *_HEIC, b"mif1", b"msf1"}:
        return None  # a film may be compatible with mif1
    for brand in brands:
        if brand in _AVIF:
            return "AVIF"
        if brand in _HEIC:
            return _HEIF
    return None


def _older_format(head: bytes) -> str | None:
    if head.startswith(_TIFF):
        return "TIFF"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(_JPEG2000):
        return "JPEG2000"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return "PPM" if _PPM.match(head) else None
