"""Copies of images are known again, others are not, and a stranger's sketch does no harm."""

from __future__ import annotations

import shutil

import pytest

from vptkit.errors import DataError
from vptkit.images import image_sketch
from vptkit.images.image_sketch import count_known, sketch_of


@pytest.fixture
def images(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(20):
        (tmp_path / "a" / f"{i}.jpg").write_bytes(b"image %d" % i)
    return sorted((tmp_path / "a").iterdir())


def test_copies_are_known_by_their_bytes(images, tmp_path):
    sketch = sketch_of(images[:12])
    assert len(sketch) == 120
    copies = [tmp_path / f"other-{i}.png" for i in range(20)]
    for image, copy in zip(images, copies, strict=True):
        shutil.copyfile(image, copy)
    assert count_known(copies, sketch) == 12
    assert count_known(copies[12:], sketch_of(images)) == 8
    copies[0].write_bytes(b"changed")
    assert count_known(copies[:3] + images[:1], sketch_of(images[:1])) == 1


def test_of_many_images_a_sample_is_kept(images, monkeypatch):
    monkeypatch.setattr(image_sketch, "_MOST", 5)
    sketch = sketch_of(images)
    assert len(sketch) == 50
    assert sketch == sketch_of(images[::-1])
    assert count_known(images, sketch) == 5


@pytest.mark.parametrize("sketch", [None, 3, "", "x" * 10, "0" * 9, "0" * 11, ["0" * 10], {}])
def test_what_is_no_sketch_knows_none(images, sketch):
    assert count_known(images, sketch) == 0


def test_an_image_that_is_gone(tmp_path):
    with pytest.raises(DataError):
        sketch_of([tmp_path / "nothing.jpg"])
