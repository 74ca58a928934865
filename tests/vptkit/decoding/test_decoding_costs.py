"""Small files that keep a decoder busy are refused; ordinary ones of the same sort are not."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from vptkit.decoding.decoding_costs import decoding_cost
from vptkit.errors import DataError
from vptkit.images.image_file import open_image


def segment(kind, content):
    return bytes([0xFF, kind]) + struct.pack(">H", len(content) + 2) + content


SCAN = segment(0xDA, b"\1\1\0\0\0\0")


def jpeg(side, scans, *, between=b"", head=b"", sof=0xC2):
    """Grey, square, and nothing in its scans: 10 bytes each."""
    return b"".join(
        [
            b"\xff\xd8",
            head,
            segment(0xDB, b"\0" + b"\1" * 64),
            segment(sof, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0"),
            segment(0xC4, b"\0\1" + bytes(16)),
            (SCAN + between) * scans,
            b"\xff\xd9",
        ]
    )


def bmp(width, rows):
    """One line, run-length encoded."""
    head = struct.pack("<IiiHHIIiiII", 40, width, 1, 1, 8, 1, len(rows), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(rows), 0, 0, 1078) + head + bytes(1024) + rows


def tiff(side, tile):
    data = zlib.compress(bytes(min(tile, 512) ** 2))
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile}
    tags |= {324: 200, 325: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries
    return head.ljust(200, b"\0") + data


def jpeg2000(side, precincts, *, behind=b"", levels=0):
    """A codestream whose only tile is empty; sizes of precincts by their exponents."""
    siz = struct.pack(">H8IH", 0, side, side, 0, 0, side, side, 0, 0, 1) + b"\7\1\1"
    cod = bytes([bool(precincts), 0, 0, 1, 0, levels, 4, 4, 0, 1]) + bytes(precincts)
    qcd = b"\x40" + b"\x48" * (3 * levels + 1)
    tile = segment(0x90, struct.pack(">HIBB", 0, 22 + len(behind), 0, 1)) + behind + b"\xff\x93"
    head = b"\xff\x4f" + segment(0x51, siz) + segment(0x52, cod) + segment(0x5C, qcd)
    return head + tile + bytes(8) + b"\xff\xd9"


FORGED = {
    "scans": jpeg(9000, 51),
    "many scans": jpeg(3000, 1000),
    "scans that are not progressive": jpeg(9000, 51, sof=0xC0),
    "scans with data": jpeg(9000, 51, between=b"\xff\0\xff\xd0\1\2"),
    "scans of padded markers": jpeg(9000, 51, between=b"\xff\xff"),
    "run-length": bmp(12_000_000, b"\1\5\0\0"),
    "text": b"P3 3000 3000 255\n" + b"1 " * 9,
    "numbers": b"P6 3000 3000 100\n" + bytes(9),
    "tile": tiff(100, 20_000),
    "precincts": jpeg2000(2000, [0]),
    "precincts of some level": jpeg2000(4000, [0xFF, 0x11], levels=1),
    "precincts of a tile": jpeg2000(2000, [], behind=segment(0x52, b"\1\0\0\1\0\0\4\4\0\1\0")),
    "precincts of a component": jpeg2000(2000, [], behind=segment(0x53, b"\0\1\0\4\4\0\1\0")),
}


@pytest.mark.parametrize("name", FORGED)
def test_little_that_costs_much_is_refused_before_it_is_decoded(name, tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("decoded"))
    (tmp_path / "x.png").write_bytes(FORGED[name])
    with pytest.raises(DataError, match=r"x\.png: \d+ x \d+ pixels .*as much work as .* bomb"):
        open_image(tmp_path / "x.png")


FILM = SCAN * 200  # as it may stand in any other data
HONEST = {
    "scans": jpeg(64, 40),
    "scans of a small picture": jpeg(64, 500),
    "scans behind the picture": jpeg(5000, 1) + FILM,
    "scans in a thumbnail": jpeg(5000, 1, head=segment(0xE1, FILM)),
    "run-length": bmp(1000, b"\1\5\0\0"),
    "text": b"P3 10 10 255\n" + b"1 " * 300,
    "numbers": b"P6 10 10 100\n" + bytes(300),
    "ordinary numbers": b"P5 3000 3000 255\n" + bytes(9_000_000),
    "tile": tiff(100, 512),
    "precincts": jpeg2000(64, [0x55]),
    "levels": jpeg2000(500, [0x22, 0x33, 0x44], levels=2),
    "data that looks like a style": jpeg2000(2000, []) + b"\xff\x52\0\x20" + bytes(40),
}


@pytest.mark.parametrize("name", HONEST)
def test_ordinary_files_are_decoded(name, tmp_path):
    (tmp_path / "x.png").write_bytes(HONEST[name])
    with Image.open(tmp_path / "x.png") as image:
        side = image.size
    assert open_image(tmp_path / "x.png").size == side


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"progressive": True, "quality": 95}),
        ("JPEG", {}),
        ("PNG", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
        (
            "JPEG2000",
            {"irreversible": False, "precinct_size": (64, 64), "codeblock_size": (16, 16)},
        ),
    ],
)
@pytest.mark.parametrize("bound", [1, 89_000_000])
def test_what_pillow_writes_costs_its_pixels(kind, options, bound):
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    with Image.open(stream) as image:
        place = stream.tell()
        cost = decoding_cost(image, stream, bound).pixels
        assert stream.tell() == place
    assert 60_000 <= cost <= (60_000 if kind != "JPEG2000" else 140_000)


@pytest.mark.parametrize("scans", [50, 51, 500])
def test_what_is_not_counted_could_not_cost_more(scans):
    """A file is looked into only where so many bytes could hold too many scans."""
    content = jpeg(100, scans)
    most = 10_000 * (1 + len(content) // 500)
    with Image.open(io.BytesIO(content)) as image:
        unseen = decoding_cost(image, io.BytesIO(content), most).pixels
        seen = decoding_cost(image, io.BytesIO(content), most - 1).pixels
    assert unseen == 10_000
    assert seen == 10_000 * -(-scans // 50) <= most
