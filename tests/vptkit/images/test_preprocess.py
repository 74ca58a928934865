"""Byte for byte what timm's evaluation transform does, on real and on generated images."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.support.timms import OLDER, REASON
from vptkit.errors import AdapterError, DataError
from vptkit.images.image_file import image_files, open_image
from vptkit.images.preprocess import Preprocess, normalize, prepare

if TYPE_CHECKING:
    from pathlib import Path

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def preprocess(
    size: tuple[int, int] = (32, 32), interpolation: str = "bicubic", crop_pct: float = 0.875
) -> Preprocess:
    return Preprocess(
        input_size=(3, *size),
        mean=MEAN,
        std=STD,
        interpolation=interpolation,
        crop_pct=crop_pct,
    )


@functools.cache
def timm_transform(p: Preprocess, *, as_bytes: bool):
    from timm.data import create_transform

    if OLDER and p.input_size[1] != p.input_size[2] and p.interpolation != "bilinear":
        pytest.skip(REASON)  # ResizeKeepRatio(scale_size): the filter is not handed on
    return create_transform(
        input_size=p.input_size,
        is_training=False,
        interpolation=p.interpolation,
        mean=p.mean,
        std=p.std,
        crop_pct=p.crop_pct,
        crop_mode="center",
        use_prefetcher=as_bytes,
    )


def timm_bytes(image: Image.Image, p: Preprocess) -> np.ndarray:
    """uint8 [H, W, 3]."""
    return np.asarray(timm_transform(p, as_bytes=True)(image)).transpose(1, 2, 0)


def timm_pixels(image: Image.Image, p: Preprocess) -> np.ndarray:
    """float32 [1, 3, H, W]."""
    return timm_transform(p, as_bytes=False)(image).numpy()[None]


def assert_same(image: Image.Image, p: Preprocess) -> None:
    ours = prepare(image, p)
    np.testing.assert_array_equal(ours, timm_bytes(image, p))
    np.testing.assert_array_equal(normalize(ours[None], p), timm_pixels(image, p))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(32, 32), (24, 40), (41, 17)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.9, 0.875])
@pytest.mark.parametrize(
    "shape", [(97, 61), (61, 97), (32, 32), (33, 33), (7, 5), (300, 8), (8, 300), (1, 1)]
)
def test_generated_images(interpolation, size, crop_pct, shape):
    assert_same(noise(*shape), preprocess(size, interpolation, crop_pct))


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    width=st.integers(1, 130),
    height=st.integers(1, 130),
    size=st.tuples(st.integers(1, 64), st.integers(1, 64))
    | st.integers(1, 64).map(lambda n: (n, n)),
    crop_pct=st.sampled_from([0.5, 0.7, 0.8, 0.875, 0.9, 0.95, 0.96, 1.0]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)
def test_any_size(width, height, size, crop_pct, interpolation):
    if OLDER and size[0] != size[1]:
        interpolation = "bilinear"  # see `timm_transform`
    assert_same(noise(width, height), preprocess(size, interpolation, crop_pct))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_every_mode_through_a_file(tmp_path, mode):
    """As timm's loader reads it: open, convert to RGB."""
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    noise(97, 61).convert(mode).save(path)
    with Image.open(path) as image:
        expected = timm_bytes(image.convert("RGB"), preprocess())
    np.testing.assert_array_equal(prepare(open_image(path), preprocess()), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_that_of_the_upright_one(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise(97, 61).save(tmp_path / "x.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "x.jpg") as image:
        upright = ImageOps.exif_transpose(image)
    expected = timm_bytes(upright, preprocess())
    np.testing.assert_array_equal(prepare(open_image(tmp_path / "x.jpg"), preprocess()), expected)


@pytest.mark.parametrize(
    ("size", "crop_pct"),
    [((224, 224), 0.9), ((224, 224), 0.875), ((96, 160), 1.0), ((518, 518), 1.0)],
)
def test_real_images(shared: Path, size, crop_pct):
    files = [
        file
        for dataset in sorted((shared / "data").iterdir())
        if dataset.is_dir()
        for file in image_files(dataset)[::97]
    ]
    assert len(files) > 15
    assert len({open_image(file).size for file in files}) > 5
    for file in files:
        assert_same(open_image(file), preprocess(size, crop_pct=crop_pct))


def test_a_broken_twin_differs():
    """Each detail matters: the filter, the crop share, a pixel's shift."""
    image = noise(97, 61)
    expected = timm_bytes(image, preprocess())
    for wrong in (
        prepare(image, preprocess(interpolation="bilinear")),
        prepare(image, preprocess(crop_pct=0.9)),
        np.roll(prepare(image, preprocess()), 1, axis=1),
        prepare(ImageOps.mirror(image), preprocess()),
    ):
        assert (wrong != expected).any()


def test_normalize_is_channels_first_and_contiguous():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    pixels = normalize(images, preprocess((5, 4)))
    assert (pixels.dtype, pixels.shape) == (np.float32, (2, 3, 5, 4))
    assert pixels.flags.c_contiguous
    expected = (images[1, 2, 3, 0] / 255 - MEAN[0]) / STD[0]
    assert pixels[1, 0, 2, 3] == pytest.approx(expected, abs=1e-6)


def test_json_round_trip():
    p = preprocess((24, 40), "bilinear", 0.9)
    assert Preprocess.from_json(json.loads(json.dumps(p.to_json()))) == p


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_size": [1, 32, 32]}, "input_size"),
        ({"input_size": [3, 0, 32]}, "input_size"),
        ({"input_size": "large"}, "preprocess"),
        ({"std": [0.2, 0.2, 0]}, "std"),
        ({"mean": [0.5, 0.5]}, "mean"),
        ({"interpolation": "random"}, "'random', expected nearest"),
        ({"crop_pct": 0}, "crop_pct is 0"),
        ({"crop_pct": 1.1}, "crop_pct is 1.1"),
        ({"crop_pct": None}, "preprocess"),
        ({"mean": [float("nan"), 0.5, 0.5]}, "mean"),
        ({"crop_mode": "center"}, "crop_mode"),
    ],
)
def test_senseless_values_are_refused(change, message):
    with pytest.raises(AdapterError, match=message):
        Preprocess.from_json(preprocess().to_json() | change)


@pytest.mark.parametrize("document", [None, [], "x", {}])
def test_what_is_no_document_is_refused(document):
    with pytest.raises(AdapterError, match="expected the keys"):
        Preprocess.from_json(document)


def test_the_bound_is_on_what_would_be_made():
    wide = preprocess((224, 224), crop_pct=0.875)  # resized to 256 rows
    assert prepare(Image.new("RGB", (20_000, 100)), wide).shape == (224, 224, 3)  # a panorama
    with pytest.raises(
        DataError, match=r"p\.png: 200000 x 1 pixels would be resized to 51200000 x"
    ):
        prepare(Image.new("RGB", (200_000, 1)), wide, "p.png")
    with pytest.raises(DataError, match="1 x 200000 pixels would be"):
        prepare(Image.new("RGB", (1, 200_000)), preprocess((224, 112), crop_pct=0.875))
