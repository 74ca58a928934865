"""What a file is that no decoder takes: its first bytes tell, whatever it is called."""

from __future__ import annotations

from pathlib import Path

from vptkit.errors import DataError
from vptkit.regular_files import open_regular

__all__ = ["what_it_is"]

_HEAD = 32  # bytes
_CONVERT = "convert it to JPEG first"
# First bytes → what it is
_KINDS = {
    b"%PDF": f"it is a PDF; {_CONVERT}",
    b"%!PS": f"it is PostScript; {_CONVERT}",
    b"<svg": f"it is an SVG drawing; {_CONVERT}",
    b"<?xml": "it is XML, perhaps an SVG drawing",
    b"<!DOCTYPE html": "it is a web page: a download that went wrong?",
    b"<html": "it is a web page: a download that went wrong?",
    b"version https://git-lfs": "it is a pointer of Git LFS: fetch the file with git lfs pull",
    b"PK\x03\x04": "it is a ZIP archive",
    b"\x1f\x8b": "it is a gzip archive",
    b"\x89HDF": "it is HDF5",
    b"\x93NUMPY": "it is an array of numpy",
    b"8BPS": f"it is a Photoshop file; {_CONVERT}",
    b"\x1aE\xdf\xa3": "it is a video",
}
# ISO base media: brand, behind "ftyp"
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF, which this Pillow was built without"),
}


def what_it_is(image: object) -> str:
    """As "it is empty" or "it is HEIC; convert it to JPEG first"; "" where nothing is known.

    Args:
        image: a path; of anything else nothing is known.
    """
    if not isinstance(image, Path):
        return ""
    try:
        with open_regular(image, DataError) as stream:
            head = stream.read(_HEAD)
    except (DataError, OSError):
        return ""
    if not head:
        return "it is empty"
    if head[4:8] == b"ftyp":
        kind = _BRANDS.get(head[8:12])
        if kind is None:
            return "it is a video"
        more = ", or pip install pillow-heif" if kind == "HEIC" else ""
        return f"it is {kind}; {_CONVERT}{more}"
    if head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"WAVE"):
        return "it is a video or a sound"
    lowered = head.lstrip().lower()
    return next((text for first, text in _KINDS.items() if lowered.startswith(first.lower())), "")
