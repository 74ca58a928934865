from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from vptkit.errors import DataError, VptkitError
from vptkit.images import image_pixels
from vptkit.images.image_file import open_image
from vptkit.images.image_pixels import decoded_image, pixels_of
from vptkit.images.preprocess import DECODE, Preprocess, prepare

if TYPE_CHECKING:
    from pathlib import Path

SMALL = Preprocess(input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=0.9)
TALL = Preprocess(input_size=(3, 48, 24), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0)


def photograph(size: tuple[int, int]) -> Image.Image:
    """Smooth, with an edge and a corner that show where it is shifted or turned."""
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (6, 9, 3), dtype=np.uint8))
    image = image.resize(size, Image.Resampling.BICUBIC)
    image.paste((255, 0, 0), (0, 0, size[0] // 3, size[1] // 4))
    return image


def written(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def apart(path: Path, preprocess: Preprocess) -> np.ndarray:
    exact = pixels_of(path, preprocess.reading("exact"))
    fast = pixels_of(path, preprocess.reading("fast"))
    assert exact.shape == fast.shape == (*preprocess.size, 3)
    return np.abs(exact.astype(np.int16) - fast)


def decoded_size(monkeypatch: pytest.MonkeyPatch, path: Path, preprocess: Preprocess) -> tuple:
    """(W, H) that the decoder gave."""
    seen = []

    def watched(image: Image.Image, *rest: object, **options: object) -> np.ndarray:
        seen.append(image.size)
        return prepare(image, *rest, **options)

    monkeypatch.setattr(image_pixels, "prepare", watched)
    pixels_of(path, preprocess)
    return seen[0]


def test_exact_is_what_it_always_was(tmp_path):
    path = written(tmp_path / "a.jpg", photograph((901, 603)), quality=90)
    assert DECODE == "exact"
    expected = prepare(open_image(path), SMALL)
    assert np.array_equal(pixels_of(path, SMALL), expected)
    assert np.array_equal(pixels_of(path, SMALL.reading(None)), expected)


@pytest.mark.parametrize("preprocess", [SMALL, TALL])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_fast_is_nearly_the_same_however_the_camera_was_held(tmp_path, preprocess, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = written(tmp_path / "a.jpg", photograph((901, 603)), quality=95, exif=exif)
    difference = apart(path, preprocess)
    assert difference.mean() < 0.7  # half a pixel of shift gives 2 and more
    assert difference.max() <= 24  # at the corner's edge; a turn that is wrong gives 255


def test_a_smaller_picture_is_decoded(tmp_path, monkeypatch):
    path = written(tmp_path / "a.jpg", photograph((901, 603)))
    assert decoded_size(monkeypatch, path, SMALL) == (901, 603)
    assert decoded_size(monkeypatch, path, SMALL.reading("fast")) == (113, 76)  # an eighth


@pytest.mark.parametrize(
    ("size", "expected"), [((69, 69), 1), ((70, 70), 1), ((140, 140), 2), ((280, 280), 4)]
)
def test_twice_the_size_that_is_needed_is_left(tmp_path, monkeypatch, size, expected):
    path = written(tmp_path / "a.jpg", photograph(size))
    found = decoded_size(monkeypatch, path, SMALL.reading("fast"))
    assert found == tuple(side // expected for side in size)  # 35 are needed
    if expected == 1:
        assert not apart(path, SMALL).any()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk(tmp_path, mode):
    path = written(tmp_path / "a.jpg", photograph((601, 400)).convert(mode), quality=95)
    assert apart(path, SMALL).mean() < 0.7


def test_progressive_and_several_pictures(tmp_path):
    image = photograph((601, 400))
    path = written(tmp_path / "a.jpg", image, quality=95, progressive=True)
    assert apart(path, SMALL).mean() < 0.7
    several = tmp_path / "b.mpo"
    image.save(several, format="MPO", save_all=True, append_images=[image.rotate(180)], quality=95)
    assert apart(several, SMALL).mean() < 0.7


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.bmp", "a.tif"])
def test_what_cannot_be_decoded_smaller_is_the_same(tmp_path, name):
    assert not apart(written(tmp_path / name, photograph((601, 400))), SMALL).any()


def test_a_long_and_thin_picture(tmp_path):
    assert apart(written(tmp_path / "a.jpg", photograph((3001, 300))), SMALL).mean() < 0.7


@pytest.mark.parametrize("decode", ["exact", "fast"])
def test_broken_ones_are_refused_alike(tmp_path, decode):
    place = io.BytesIO()
    photograph((901, 603)).save(place, "JPEG")
    for name, content in (("cut", place.getvalue()[:3000]), ("empty", b""), ("text", b"no image")):
        path = tmp_path / f"{name}.jpg"
        path.write_bytes(content)
        with pytest.raises(DataError, match=name):
            pixels_of(path, SMALL.reading(decode))


def test_another_word_is_refused_and_equality_is_that_of_the_adapter():
    with pytest.raises(VptkitError, match="decode is 'quick', expected one of exact, fast"):
        SMALL.reading("quick")
    assert SMALL.reading("fast") == SMALL
    assert SMALL.reading("fast").to_json() == SMALL.to_json()


@pytest.mark.parametrize("decode", ["exact", "fast"])
@pytest.mark.parametrize("turn", [1, 6])
def test_both_halves_are_the_whole(tmp_path, decode, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    path = written(tmp_path / "a.jpg", photograph((301, 203)), exif=exif)
    preprocess = SMALL.reading(decode)
    found = decoded_image(path, preprocess)
    again = prepare(found.image, preprocess, path, whole=found.whole, box=found.box)
    np.testing.assert_array_equal(again, pixels_of(path, preprocess))
    assert (found.box is not None) == (decode == "fast")
