from __future__ import annotations

import contextlib
import io
import os
import struct
import warnings
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vptkit.decoding.image_formats import readable_formats
from vptkit.errors import DataError
from vptkit.images import image_file
from vptkit.images.image_file import (
    FORMATS,
    MAX_PIXELS,
    PackedImage,
    class_folders,
    digest_of_image,
    image_files,
    open_image,
    rgb_of,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def picture() -> Image.Image:
    """No two corners alike, so that every turn and flip shows."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK"])
def test_every_mode_becomes_rgb_by_pillows_own_conversion(picture, tmp_path, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    picture.convert(mode).save(tmp_path / f"x.{suffix}")

    found = open_image(tmp_path / f"x.{suffix}")

    assert found.mode == "RGB"
    with Image.open(tmp_path / f"x.{suffix}") as again:
        np.testing.assert_array_equal(np.asarray(found), np.asarray(again.convert("RGB")))


def palette_with_transparency(picture: Image.Image, path: Path) -> None:
    """Transparency for each entry, which Pillow stores as bytes."""
    picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=16).save(
        path, transparency=bytes(range(0, 256, 16))
    )


def test_transparency_of_a_palette_is_dropped(picture, tmp_path):
    palette_with_transparency(picture, tmp_path / "x.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = open_image(tmp_path / "x.png")
        with Image.open(tmp_path / "x.png") as again:
            expected = np.asarray(again.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_orientation_is_applied(picture, tmp_path, orientation):
    turned = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "x.png", exif=exif)
    expected = picture if turned is None else picture.transpose(turned)
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "x.png")), np.asarray(expected))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an image that Pillow can read"),
        (b"hello, world", "not an image that Pillow can read"),
        (None, "no such file"),
    ],
)
def test_what_is_no_image_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "x.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"x\.jpg: {message}"):
        open_image(path)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(DataError, match=str(tmp_path)):
        open_image(tmp_path)


SUFFIXES = ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm")


def encoded(suffix: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=suffix)
    return stream.getvalue()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truncated_image_is_refused(tmp_path, suffix):
    data = encoded(suffix)
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=rf"x\.{suffix}"):
        open_image(path)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    suffix=st.sampled_from(SUFFIXES),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4),
)
@pytest.mark.filterwarnings("ignore")
def test_damage_is_a_data_error_or_an_image_and_nothing_else(tmp_path_factory, suffix, cut, flips):
    data = bytearray(encoded(suffix))
    for where, value in flips:
        # The head is where formats keep their structure, so half of the flips go there.
        size = len(data) if value % 2 else min(200, len(data))
        data[int(where * size)] = value
    path = tmp_path_factory.getbasetemp() / f"damaged.{suffix}"
    path.write_bytes(bytes(data[: max(1, int(cut * 2 * len(data)))]))
    with contextlib.suppress(DataError):
        assert open_image(path).mode == "RGB"


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99))


@pytest.mark.parametrize("pixels", [MAX_PIXELS * 1.05, MAX_PIXELS * 3])
def test_an_image_bomb_is_refused_before_it_is_decoded(tmp_path, pixels):
    side = int(pixels**0.5)
    (tmp_path / "bomb.png").write_bytes(png_that_claims(side, side))
    with pytest.raises(DataError, match=r"bomb\.png.*decompression bomb"):
        open_image(tmp_path / "bomb.png")


def test_image_files_are_sorted_and_hidden_ones_left_out(tmp_path):
    for name in ("b.JPG", "a/z.png", ".x.png", ".git/y.png", "a/notes.txt", "c.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "lost.png").symlink_to("nowhere")
    found = [p.relative_to(tmp_path).as_posix() for p in image_files(tmp_path)]
    assert found == ["a/z.png", "b.JPG", "c.jpeg", "lost.png"]
    with pytest.raises(DataError, match="no such folder"):
        image_files(tmp_path / "nowhere")


def test_class_folders(tmp_path):
    for name in ("dog/1.jpg", "cat/x/2.jpg", "cat/1.jpg", ".cache/1.jpg", "readme.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = class_folders(tmp_path)
    assert list(found) == ["cat", "dog"]
    assert [p.name for p in found["cat"]] == ["1.jpg", "2.jpg"]


def test_a_name_with_its_accent_apart_is_the_same_class(tmp_path):
    """As macOS writes names, in one split, and others in another: nobody sees a difference."""
    for name in ("cafe\u0301/1.jpg", "caf\u00e9/2.jpg", "\u732b/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    found = class_folders(tmp_path)
    assert {name: len(files) for name, files in found.items()} == {"caf\u00e9": 2, "\u732b": 1}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "empty: expected one folder per class"),
        (["a.jpg"], "empty: expected one folder per class"),
        (["cat/1.jpg"], "only one class, 'cat'"),
        (["cat/1.jpg", "dog/readme.txt"], "no images in the class folder 'dog'"),
    ],
)
def test_folders_without_two_classes_are_refused(tmp_path, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=message):
        class_folders(tmp_path)


def test_damaged_exif_is_a_data_error_or_an_image(picture, tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "abc", 6
    picture.save(tmp_path / "x.jpg", exif=exif)
    data = bytearray((tmp_path / "x.jpg").read_bytes())
    entry = data.index(b"\x01\x0f\x00\x02")  # the maker, a text: let its tag be nonsense
    data[entry + 1] = 0
    (tmp_path / "x.jpg").write_bytes(bytes(data))
    with contextlib.suppress(DataError):
        assert open_image(tmp_path / "x.jpg").mode == "RGB"


def test_pillows_warnings_do_not_reach_the_user(picture, tmp_path):
    palette_with_transparency(picture, tmp_path / "x.png")
    open_image(tmp_path / "x.png")  # warnings are errors in tests


# ---- files from strangers -----------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_what_people_photograph_and_scan_with_is_read(picture, tmp_path, name):
    if name == "AVIF" and "AVIF" not in readable_formats():
        pytest.skip("this Pillow does not know AVIF")
    more = {"save_all": True, "append_images": [picture]} if name == "MPO" else {}
    picture.save(tmp_path / "x", format=name, **more)
    with Image.open(tmp_path / "x") as expected:
        assert expected.format == name
        wanted = np.asarray(expected.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "x")), wanted)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"


@pytest.mark.parametrize("name", ["EPS", "ICO", "PCX", "SGI", "TGA", "ICNS", "DDS", "PDF"])
def test_what_nobody_photographs_with_is_refused_whatever_it_is_called(
    picture, tmp_path, monkeypatch, name
):
    def started(*args, **kwargs):
        raise AssertionError("a program was started")

    if name == "EPS":
        (tmp_path / "x.png").write_bytes(EPS)
    else:
        picture.save(tmp_path / "x.png", format=name)
    monkeypatch.setattr("subprocess.Popen.__init__", started)
    with pytest.raises(
        DataError, match=r"x\.png: not an image that Pillow can read as one of JPEG"
    ):
        open_image(tmp_path / "x.png")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RecursionError("deep"),
        OverflowError("size"),
        zlib.error("bad"),
        AssertionError(),
        NotImplementedError("no"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_decoder_raises_is_the_images_error(picture, tmp_path, monkeypatch, error):
    def fail(self):
        raise error

    picture.save(tmp_path / "x.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(DataError, match=r"x\.png: (the image is broken: .|not enough memory)"):
        open_image(tmp_path / "x.png")


def test_control_c_is_not_the_images_error(picture, tmp_path, monkeypatch):
    def stop(self):
        raise KeyboardInterrupt

    picture.save(tmp_path / "x.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", stop)
    with pytest.raises(KeyboardInterrupt):
        open_image(tmp_path / "x.png")


def endless_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [os.mkfifo, endless_link], ids=["fifo", "endless"])
@pytest.mark.parametrize("read", [open_image, digest_of_image])
def test_what_is_no_regular_file_is_not_opened(tmp_path, make, read):
    make(tmp_path / "x.png")
    assert image_files(tmp_path) == [tmp_path / "x.png"]  # listed, so that somebody says so
    with pytest.raises(DataError, match=r"x\.png: a (FIFO|device), expected a regular file"):
        read(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x\.png: a (FIFO|device), expected a regular file"):
        PackedImage(tmp_path / "x.png", "y.png", 0, 9).read_bytes()


def test_of_a_file_that_does_not_end_the_bound_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(image_file, "MAX_BYTES", 1 << 20)
    with (tmp_path / "x.png").open("wb") as stream:
        stream.truncate(1 << 40)
    for read in (open_image, digest_of_image):
        with pytest.raises(DataError, match=r"x\.png: more than 1048576 bytes"):
            read(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x\.png: y\.png: more than 1048576 bytes"):
        PackedImage(tmp_path / "x.png", "y.png", 512, 1 << 39).read_bytes()


def test_jpeg_2000_takes_more_memory_so_half_as_many_pixels_are_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(image_file, "MAX_PIXELS", 5000)
    Image.new("RGB", (60, 60)).save(tmp_path / "x.png")
    Image.new("RGB", (60, 60)).save(tmp_path / "x.jp2")
    open_image(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x\.jp2: 60 x 60 pixels of JPEG 2000.*is more than 5,000"):
        open_image(tmp_path / "x.jp2")


def test_large_images_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(image_file, "_LARGE_PIXELS", 100)
    Image.new("RGB", (60, 60)).save(tmp_path / "x.png")
    plain = Image.Image.convert

    def convert(image, mode):
        assert image_file._one_large.locked()
        return plain(image, mode)

    monkeypatch.setattr(Image.Image, "convert", convert)
    open_image(tmp_path / "x.png")
    assert not image_file._one_large.locked()


def test_folders_deeper_than_pythons_stack_are_searched(tmp_path):
    place = tmp_path.joinpath(*["d"] * 1100)
    for depth in range(1, 1101):  # os.makedirs calls itself
        tmp_path.joinpath(*["d"] * depth).mkdir()
    (place / "x.png").touch()
    try:
        assert image_files(tmp_path) == [place / "x.png"]
    finally:  # what pytest would delete them with calls itself, too
        (place / "x.png").unlink()
        (tmp_path / "keep").touch()
        os.removedirs(place)


@pytest.mark.parametrize("name", ["a\0b", "a" * 300, "a/" * 3000])
@pytest.mark.parametrize("find", [image_files, class_folders])
def test_a_name_that_no_folder_has(tmp_path, find, name):
    with pytest.raises(DataError, match="no such folder"):
        find(tmp_path / name)


def test_links_in_a_circle_are_no_folders(tmp_path):
    (tmp_path / "a").symlink_to("a")
    (tmp_path / "b.png").symlink_to("b.png")
    assert image_files(tmp_path) == [tmp_path / "b.png"]
    with pytest.raises(DataError, match="empty: expected one folder per class"):
        class_folders(tmp_path)


def test_what_is_upright_rgb_is_not_copied_and_outlives_its_file(picture, tmp_path, monkeypatch):
    assert rgb_of(picture, "picture") is picture
    for name in ("a.jpg", "a.png", "a.webp", "a.bmp"):
        picture.save(tmp_path / name)
        expected = np.asarray(Image.open(tmp_path / name).convert("RGB"))
        with monkeypatch.context() as patch:
            patch.setattr(Image.Image, "copy", lambda _: pytest.fail("copied"))
            found = open_image(tmp_path / name)
        (tmp_path / name).unlink()
        assert found.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(found), expected)
        assert found.resize((8, 8)).size == (8, 8)
