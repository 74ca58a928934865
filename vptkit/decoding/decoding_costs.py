"""What decoding an image costs, from what stands in its file, before it is decoded.

A few hundred bytes may keep a decoder busy for minutes, or take gigabytes, for a picture whose size is
ordinary. Each format's own way to do that is counted here, in pixels of an ordinary image: one takes up
to 16 bytes and 0.05 µs to decode. Measured with Pillow 13.0, libjpeg-turbo 3.2 and OpenJPEG 2.5.4.
"""

from __future__ import annotations

import io
import itertools
import os
import re
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image

__all__ = ["Cost", "decoding_cost"]


class Cost(NamedTuple):
    """What decoding an image costs.

    Attributes:
        pixels: of an ordinary image that costs as much.
        why: it is more than the image has, for messages; empty where it is not.
    """

    pixels: int
    why: str


def decoding_cost(image: Image, stream: BinaryIO, bound: int) -> Cost:
    """What `image.load()` will cost; of what certainly costs less than `bound`, its pixels.

    Args:
        image: opened, not loaded.
        stream: a file or BytesIO that it was opened from; its position stays.
        bound: pixels.
    """
    pixels, kind = image.width * image.height, image.format
    if kind in ("JPEG", "MPO"):
        return _jpeg(pixels, stream, bound)
    if kind == "JPEG2000":
        return _jpeg2000(image, stream)
    if kind == "TIFF":
        return _tiff(image)
    slow = max((_IN_PYTHON.get(tile[0], 1) for tile in getattr(image, "tile", ())), default=1)
    return Cost(slow * pixels, "that are decoded in Python")


# Pillow's decoders that are written in Python: up to 0.2 µs for a pixel of a run-length encoded BMP, 2 µs
# for one of a PPM whose numbers are text, or do not end at 255 or 65,535.
_IN_PYTHON = {"bmp_rle": 8, "ppm": 20, "ppm_plain": 20}


# JPEG: each scan goes over the whole picture again, and an empty one is short ---------------------

# So many take as long as an ordinary picture does: up to 0.9 ns a pixel each. Encoders write 10 to 20.
_SCANS = 50
_SHORTEST = 10  # bytes
_SCAN = re.compile(rb"\xff\xda")  # bytes.count takes three times as long
# Of a marker that begins a segment, or ends the picture: neither 00, which stands for a plain FF in
# the data, nor one without a length (TEM, RST, SOI).
_MARKER = re.compile(rb"\xff+([\x02-\xcf\xd9-\xfe])")
_SOS, _EOI = 0xDA, 0xD9
_PIECE = 1 << 18  # bytes


def _jpeg(pixels: int, stream: BinaryIO, bound: int) -> Cost:
    if pixels * (1 + _size(stream) // (_SCANS * _SHORTEST)) <= bound:
        return Cost(
            pixels, ""
        )  # whatever it consists of; to look takes 5 % of a small picture's time
    seeming = itertools.chain.from_iterable(map(_SCAN.finditer, _pieces(stream)))
    if not any(True for _ in itertools.islice(seeming, _SCANS, None)):
        return Cost(pixels, "")
    scans = _scans(_content(stream))  # others stand in other data, as that of a film behind it
    return Cost(pixels * max(1, -(-scans // _SCANS)), f"in {scans} scans")


def _scans(content: bytes) -> int:
    """How many scans a JPEG has before its end (ITU-T T.81, annex B)."""
    count, place = 0, 0
    while marker := _MARKER.search(content, place):
        kind, place = marker[1][0], marker.end()
        if kind == _EOI:
            break
        count += kind == _SOS
        place += int.from_bytes(content[place : place + 2], "big")
    return count


# JPEG 2000: structures for each precinct, which may be one pixel ----------------------------------

_PLAIN = 2  # OpenJPEG takes 24 bytes for a pixel
_PRECINCT = 50  # and 550 bytes, 1.1 µs, for a precinct
_LARGEST = 15  # exponent of a precinct's size, where none stands in the file
# Coding styles, of all components or one, anywhere: in the main header or a tile's. Data may have the
# same bytes, but hardly a length that fits.
_STYLE = re.compile(rb"\xff[\x52\x53]")
_COD = 0x52
_MOST_LEVELS, _LONGEST_STYLE = 32, 45


def _jpeg2000(image: Image, stream: BinaryIO) -> Cost:
    content, bands = _content(stream), len(image.getbands())
    counts = [
        sum(
            _precincts(image.size, len(sizes) - 1 - level, size) for level, size in enumerate(sizes)
        )
        for sizes in map(_precinct_sizes, _styles(content))
    ]
    precincts = bands * max(counts, default=0)
    pixels = _PLAIN * image.width * image.height + _PRECINCT * precincts
    return Cost(pixels, f"of JPEG 2000 in {precincts} precincts")


def _styles(content: bytes) -> set[tuple[bool, bytes]]:
    """Whether precincts have sizes, and the rest, from the number of levels on (T.800, A.6)."""
    styles = set()
    for found in _STYLE.finditer(content):
        length = int.from_bytes(content[found.end() : found.end() + 2], "big")
        if length <= _LONGEST_STYLE:
            body = content[found.end() + 2 : found.end() + length]
            of_all = content[found.start() + 1] == _COD
            flags, rest = (body[:1], body[5:]) if of_all else (body[1:2], body[2:])
            if len(rest) >= 5:
                styles.add((bool(flags[0] & 1), rest))
    return styles


def _precinct_sizes(style: tuple[bool, bytes]) -> list[tuple[int, int]]:
    """Exponents of width and height, from the lowest resolution on; none if it is no style."""
    sized, rest = style
    levels = rest[0]
    if levels > _MOST_LEVELS or len(rest) != 5 + (levels + 1) * sized:
        return []
    if not sized:
        return [(_LARGEST, _LARGEST)] * (levels + 1)
    return [(size & 15, size >> 4) for size in rest[5:]]


def _precincts(size: tuple[int, int], halvings: int, exponents: tuple[int, int]) -> int:
    across, down = (
        -(-pixels >> halvings + exponent)  # rounded up
        for pixels, exponent in zip(size, exponents, strict=True)
    )
    return across * down


# TIFF: tiles are decoded whole, and may be larger than the picture --------------------------------

_TILE_WIDTH, _TILE_HEIGHT = 322, 323


def _tiff(image: Image) -> Cost:
    sides = []
    for pixels, tag in ((image.width, _TILE_WIDTH), (image.height, _TILE_HEIGHT)):
        tile = getattr(image, "tag_v2", {}).get(tag)
        sides.append(max(pixels, tile) if isinstance(tile, int) else pixels)
    return Cost(sides[0] * sides[1], f"in tiles of {sides[0]} x {sides[1]}")


# what they share ----------------------------------------------------------------------------------


def _size(stream: BinaryIO) -> int:
    if isinstance(stream, io.BytesIO):
        return stream.getbuffer().nbytes
    return os.fstat(stream.fileno()).st_size


def _content(stream: BinaryIO) -> bytes:
    return b"".join(_pieces(stream))


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    """All of a stream, not at once, which takes longer; its position stays."""
    place = stream.tell()
    stream.seek(0)
    try:
        while piece := stream.read(_PIECE):
            yield piece
    finally:
        stream.seek(place)
