"""Copies of a picture are found, written anew or at another size; pictures of one kind are not taken for one."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vptkit.images import similar_images
from vptkit.images.image_file import list_images, open_image
from vptkit.images.preprocess import Preprocess, prepare
from vptkit.images.similar_images import (
    difference,
    look_of,
    near_pairs,
    one_is_the_same,
)

PREPROCESS = Preprocess(
    input_size=(3, 96, 96), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=0.9
)  # fmt: skip


def picture(seed):
    """Blobs of colour: what a photograph is at a low resolution."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((220, 180), Image.Resampling.BICUBIC)


def written(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    stream.seek(0)
    return Image.open(stream).convert("RGB")


def pixels_of(image):
    return prepare(image, PREPROCESS)


def same(one, other):
    return one_is_the_same([difference(one, other)])


def hashes(images):
    return np.array([look_of(pixels_of(image)) for image in images], dtype=np.uint64)


COPIES = {
    "png": lambda image: written(image, "PNG"),
    "jpeg of 50": lambda image: written(image, "JPEG", quality=50),
    "webp": lambda image: written(image, "WEBP", quality=60),
    "half as large": lambda image: image.resize((110, 90), Image.Resampling.LANCZOS),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_known_again(kind):
    images = [picture(seed) for seed in range(8)]
    copies = [COPIES[kind](image) for image in images]
    found = set(near_pairs(hashes(copies), hashes(images)))
    assert {(i, i) for i in range(8)} <= found
    assert all(same(pixels_of(a), pixels_of(b)) for a, b in zip(copies, images, strict=True))


def test_other_pictures_are_others():
    one, other = (hashes([picture(seed) for seed in seeds]) for seeds in (range(40), range(40, 80)))
    for i, j in near_pairs(one, other):
        assert not same(pixels_of(picture(i)), pixels_of(picture(40 + j)))
    assert not same(pixels_of(picture(0)), pixels_of(picture(1)))


def test_flat_pictures_are_the_same_only_to_the_pixel():
    """Blank slides, white pages: their hashes are equal, and there is nothing to compare."""
    white, grey = (np.full((96, 96, 3), value, np.uint8) for value in (255, 254))
    assert look_of(white) == look_of(grey)
    assert same(white, white.copy())
    assert not same(white, grey)


def test_of_many_hashes_equal_ones_are_found(monkeypatch):
    some, others = np.array([1, 7, 9], np.uint64), np.array([9, 6, 9, 1], np.uint64)
    near = {(i, j) for i in range(3) for j in range(4) if bin(some[i] ^ others[j]).count("1") <= 6}
    assert set(near_pairs(some, others)) == near
    monkeypatch.setattr(similar_images, "_MOST_WORK", 1)
    assert set(near_pairs(some, others)) == {(0, 3), (2, 0), (2, 2)}


def test_small_pictures_must_be_nearer():
    glyph = picture(0).resize((28, 28))
    copy = difference(
        pixels_of(glyph), pixels_of(written(glyph, "JPEG", quality=95, subsampling=0))
    )
    assert 0 < copy < 0.005
    assert one_is_the_same([copy], small=True)
    assert not one_is_the_same([0.01], small=True)


@pytest.mark.parametrize(
    ("differences", "same"),
    [
        ([0.09], True),
        ([0.11], False),
        ([0.25, 0.08], True),  # a copy is much nearer than the next
        ([0.08, 0.09], False),  # all look alike
        ([0.01, 0.015], True),  # two copies
    ],
)
def test_the_nearest_of_many_that_look_alike_is_no_copy(differences, same):
    assert one_is_the_same(differences) is same


def test_an_older_numpy_counts_bits_too():
    numbers = np.random.default_rng(0).integers(0, 2**64, (3, 5), dtype=np.uint64)
    parts = similar_images._BITS_OF_16[numbers.view(np.uint16).reshape(3, 5, 4)].sum(axis=-1)
    np.testing.assert_array_equal(parts, similar_images._count_bits(numbers))


@pytest.mark.long
@pytest.mark.parametrize("name", ["breakhis100x", "flowers5"])
def test_no_two_pictures_of_a_real_set_are_taken_for_one(shared, name):
    files = list_images(shared / "data" / name).images[::3]
    pixels = [pixels_of(open_image(file)) for file in files]
    looks = np.array([look_of(one) for one in pixels], dtype=np.uint64)
    pairs = [(i, j) for i, j in near_pairs(looks, looks) if i < j]
    assert not [(files[i], files[j]) for i, j in pairs if same(pixels[i], pixels[j])]
