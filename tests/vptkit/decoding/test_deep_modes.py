"""A picture of more than 8 bits gives the pixels of the same picture at 8 bits, or is refused by name."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from vptkit.decoding.deep_modes import eight_bits
from vptkit.errors import DataError
from vptkit.images.image_file import open_image, rgb_of

HALF_A_LEVEL = 0.5
RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 65_536, (20, 31), dtype=np.uint16)  # also dark ones and white
GREY[0, :3] = 0, 65_535, 255
COLOURS = RNG.integers(0, 256, (20, 31, 3), dtype=np.uint8)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png16(pixels, colour_type):
    """A PNG of 16 bits a channel, which Pillow cannot write in colour."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff(rows, bits, *, order="<", photometric=1, form=1, samples=1, size=None):
    """A TIFF of one strip: its fields are ours, so that Pillow's writer decides nothing."""
    height, width = size or rows.shape[:2]
    data = rows if isinstance(rows, bytes) else rows.tobytes()
    tags = {
        256: (3, width), 257: (3, height), 258: (3, bits), 259: (3, 1), 262: (3, photometric),
        273: (4, 8), 277: (3, samples), 278: (3, height), 279: (4, len(data)), 339: (3, form),
    }  # fmt: skip
    data += b"\0" * (len(data) % 2)
    fields, place, more = b"", 8 + len(data) + 2 + 12 * len(tags) + 4, b""
    for tag, (kind, value) in tags.items():
        count = samples if tag in (258, 339) else 1
        packed = struct.pack(order + ("HI"[kind == 4]) * count, *[value] * count)
        if len(packed) > 4:
            more, packed = more + packed, struct.pack(order + "I", place + len(more))
        fields += struct.pack(order + "HHI", tag, kind, count) + packed.ljust(4, b"\0")
    first = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    return first + data + struct.pack(order + "H", len(tags)) + fields + bytes(4) + more


def assert_grey(found, numbers, white):
    """Within half a level of the exact value, in all three channels."""
    exact = np.asarray(numbers, np.float64) * 255 / white
    assert found.mode == "RGB"
    np.testing.assert_array_less(
        np.abs(np.asarray(found, np.float64) - exact[..., None]), HALF_A_LEVEL + 1e-6
    )


def pack12(numbers):
    """Two numbers in three bytes, each row from a byte on."""
    bits = np.unpackbits(numbers.astype(">u2").view(np.uint8).reshape(*numbers.shape, 2), axis=2)
    return np.packbits(bits[..., 4:].reshape(len(numbers), -1), axis=1).tobytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.png", png16(GREY, 0)),
        ("x.pgm", b"P5 31 20 65535\n" + GREY.astype(">u2").tobytes()),
        ("plain.pgm", b"P2 31 20 65535\n" + b" ".join(b"%d" % v for v in GREY.flat)),
        ("little.tif", tiff(GREY.astype("<u2"), 16)),
        ("big.tif", tiff(GREY.astype(">u2"), 16, order=">")),
        ("white_is_zero.tif", tiff((65_535 - GREY).astype("<u2"), 16, photometric=0)),
        ("float.tif", tiff((GREY / 65_535).astype("<f4"), 32, form=3)),
        ("float_white_is_zero.tif", tiff((1 - GREY / 65_535).astype("<f4"), 32, form=3, photometric=0)),
        ("x.pfm", b"Pf\n31 20\n-1.0\n" + (GREY[::-1] / 65_535).astype("<f4").tobytes()),
    ],
)  # fmt: skip
def test_grey_of_16_bits_and_of_floats_is_scaled(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert_grey(open_image(tmp_path / name), GREY, 65_535)


@pytest.mark.parametrize(("name", "options"), [("x.png", {}), ("x.tif", {}),
    ("packed.tif", {"compression": "tiff_lzw"}), ("x.pgm", {}), ("x.jp2", {"irreversible": False})])  # fmt: skip
def test_what_pillow_writes_of_16_bits_is_read(tmp_path, name, options):
    if name.endswith("jp2") and not features.check("jpg_2000"):
        pytest.skip("this Pillow has no JPEG 2000")
    try:
        Image.fromarray(GREY).save(tmp_path / name, **options)
    except OSError as error:
        pytest.skip(f"this Pillow does not write it: {error}")
    assert_grey(open_image(tmp_path / name), GREY, 65_535)


def test_a_tiff_of_12_bits_ends_at_4095(tmp_path):
    numbers = GREY[:, :30] >> 4
    (tmp_path / "x.tif").write_bytes(tiff(pack12(numbers), 12, size=numbers.shape))
    assert_grey(open_image(tmp_path / "x.tif"), numbers, 4095)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.png", png16(COLOURS.astype(np.uint16) * 257, 2)),
        ("alpha.png", png16(np.dstack([COLOURS, COLOURS[..., :1]]).astype(np.uint16) * 257, 6)),
        ("little.tif", tiff(COLOURS.astype("<u2") * 257, 16, photometric=2, samples=3)),
        ("x.ppm", b"P6 31 20 65535\n" + (COLOURS.astype(">u2") * 257).tobytes()),
    ],
)
def test_colours_of_16_bits_are_those_of_8(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / name)), COLOURS)


def test_grey_of_16_bits_with_alpha_is_that_of_8(tmp_path):
    both = np.dstack([COLOURS[..., 0], COLOURS[..., 1]]).astype(np.uint16) * 257
    (tmp_path / "x.png").write_bytes(png16(both, 4))
    assert_grey(open_image(tmp_path / "x.png"), COLOURS[..., 0], 255)


def test_the_same_picture_at_8_bits_gives_the_same_pixels(tmp_path):
    Image.fromarray(COLOURS[..., 0]).save(tmp_path / "8.png")
    Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257).save(tmp_path / "16.png")
    eight, sixteen = (np.asarray(open_image(tmp_path / f"{n}.png")) for n in (8, 16))
    np.testing.assert_array_equal(eight, sixteen)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tiff(GREY.astype("<u4"), 32), "32-bit integers"),
        (tiff(GREY.astype("<i4"), 32, form=2), "32-bit integers"),
        (tiff(GREY.astype("<i2"), 16, form=2), "16-bit integers"),
        (tiff(GREY.astype("<f4"), 32, form=3), "from 0 to 65535"),
        (tiff(-GREY.astype("<f4") / 65_535, 32, form=3), "from -1 to "),
        (tiff((GREY * np.float32("nan")).astype("<f4"), 32, form=3), "nan"),
    ],
)
def test_what_nobody_knows_the_white_of_is_refused_by_name(tmp_path, content, message):
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(DataError, match=f"x.tif: .*{message}.* 8 or 16 bits"):
        open_image(tmp_path / "x.tif")


def test_an_orientation_of_a_deep_image_is_applied(tmp_path):
    image = Image.fromarray(GREY)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "x.png", exif=exif)
    assert_grey(open_image(tmp_path / "x.png"), np.rot90(GREY, -1), 65_535)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_images_of_pillow_are_read_as_files_are(mode):
    image = Image.frombytes(mode, (31, 20), GREY.astype(">u2" if "B" in mode else "<u2").tobytes())
    assert_grey(rgb_of(image, "images[0]"), GREY, 65_535)
    assert image.mode == mode
    with pytest.raises(DataError, match=r"images\[0\]: .*mode I"):
        rgb_of(Image.fromarray(GREY.astype(np.int32)), "images[0]")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
def test_what_has_8_bits_stays_itself(mode):
    image = Image.new(mode, (4, 3))
    assert eight_bits(image, "x") is image
