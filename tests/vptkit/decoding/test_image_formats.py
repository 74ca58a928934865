"""What a file is its first bytes say: photographs without an ending are taken, texts and films are not."""

from __future__ import annotations

import io
import os
import sys
import types

import numpy as np
import pytest
from PIL import Image

from vptkit.decoding import image_formats
from vptkit.decoding.image_formats import format_of, is_image, readable_formats
from vptkit.images.image_file import list_images, open_image

OPENED = ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM", "JPEG2000"]


def saved(form):
    if form not in readable_formats():
        pytest.skip(f"this Pillow has no {form}")
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(stream, form)
    return stream.getvalue()


@pytest.mark.parametrize("form", OPENED)
@pytest.mark.parametrize("name", ["photo", "x.JFIF", "x.jpg_large", "x.dat", "x.txt"])
def test_an_image_of_each_format_is_found_whatever_it_is_called(tmp_path, form, name):
    content = saved(form)
    (tmp_path / name).write_bytes(content)
    assert format_of(content[:64]) == form
    assert list_images(tmp_path).images == [tmp_path / name]
    assert open_image(tmp_path / name).size == (8, 8)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_orders_of_tiff_and_its_large_form(order):
    heads = {"<": (b"II*\0", b"II+\0"), ">": (b"MM\0*", b"MM\0+")}[order]
    assert [format_of(head + bytes(60)) for head in heads] == ["TIFF", "TIFF"]


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (b"P5 # a comment\n8 8\n255\n", "PPM"),
        (b"P6\n# one\n# two\n8 8 255\n", "PPM"),
        (b"Pf\n8 8\n-1.0\n", "PPM"),
        (b"\0\0\0\x18ftypavis\0\0\0\0avifmif1", "AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf", "HEIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x1cftypisom\0\0\0\0isommif1heic", None),
        (b"\0\0\0\x0cftypmif1\0\0\0\0avif", None),
        (b"\xff\x4f\xff\x51\0\x29", "JPEG2000"),
        (b"", None),
        (b"B", None),
        (b"BMW is a maker of cars, and this is a text", None),
        (b"P5 is the fifth participant", None),
        (b"P6, P7 and P8", None),
        (b"RIFF\0\0\0\0AVI LIST", None),
        (b"GIF is a format", None),
        (b"IIIF", None),
        (b"\xff\xfeU\0T\0F\0", None),
        (b"%PDF-1.7", None),
        (b"8BPS", None),
    ],
)
def test_first_bytes(content, form):
    assert format_of(content) == form


@pytest.mark.parametrize("name", ["x.NEF", "x.cr2", "x.dng", "x.svs", "x.jpg.part", "x.crdownload"])
def test_raw_photographs_slides_and_half_downloads_are_none(tmp_path, name):
    """They begin like images: Pillow would read a thumbnail of them, or half of one."""
    (tmp_path / name).write_bytes(saved("TIFF"))
    found = list_images(tmp_path)
    assert found.images == []
    assert found.skipped == {os.path.splitext(name)[1].lower(): 1}  # noqa: PTH122


@pytest.mark.parametrize("name", ["x.jpg", "x.JPEG", "x.jfif", "x.tiff"])
def test_what_is_called_an_image_is_taken_and_said_to_be_broken(tmp_path, name):
    (tmp_path / name).write_text("no image")
    assert list_images(tmp_path).images == [tmp_path / name]


def test_other_files_are_passed_over_and_counted(tmp_path):
    for name in ("a.txt", "b.txt", "README", "c.heic", ".hidden.jpg"):
        (tmp_path / name).write_bytes(
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" if "heic" in name else b"a"
        )
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    found = list_images(tmp_path)
    assert found.images == []
    assert found.skipped == {".txt": 2, "no suffix": 3, ".heic": 1}


def test_heic_is_read_where_somebody_installed_the_plugin(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    plugin = types.ModuleType("pillow_heif")
    plugin.register_heif_opener = lambda: Image.OPEN.update(HEIF=Image.OPEN["JPEG"])
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    image_formats.readable_formats.cache_clear()
    try:
        (tmp_path / "photo").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
        assert "HEIF" in readable_formats()
        assert is_image(tmp_path / "photo")
        assert is_image(tmp_path / "broken.HEIC")
    finally:
        image_formats.readable_formats.cache_clear()
