from __future__ import annotations

import itertools
import re
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from vptkit.errors import DataError
from vptkit.images import image_pixels as module
from vptkit.images.image_file import open_image
from vptkit.images.preprocess import prepare
from vptkit.runtime.session.image_loader import decoded

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    random = np.random.default_rng(0)
    paths = []
    for i in range(12):
        shape = (int(random.integers(5, 90)), int(random.integers(5, 90)), 3)
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(
            tmp_path / f"{i:02}.png"
        )
        paths.append(tmp_path / f"{i:02}.png")
    return paths


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("read_ahead", [0, 1, 100])
def test_order_and_pixels_are_those_of_one_thread(images, tiny_model, workers, read_ahead):
    found = list(decoded(images, tiny_model.preprocess, workers=workers, read_ahead=read_ahead))
    assert [path for path, _ in found] == images
    for path, pixels in found:
        np.testing.assert_array_equal(pixels, prepare(open_image(path), tiny_model.preprocess))


def test_a_broken_image_is_returned_as_its_error_in_its_place(images, tiny_model):
    images[3].write_bytes(images[3].read_bytes()[:60])
    found = list(decoded(images, tiny_model.preprocess))
    assert isinstance(found[3][1], DataError)
    assert str(images[3]) in str(found[3][1])
    assert not any(isinstance(item, DataError) for i, (_, item) in enumerate(found) if i != 3)


def test_reading_ahead_is_bounded(images, tiny_model):
    taken = []

    def endless():
        for i in itertools.count():
            taken.append(i)
            yield images[0]

    stream = decoded(endless(), tiny_model.preprocess, read_ahead=5)
    for _ in range(3):
        next(stream)
    stream.close()
    assert len(taken) == 3 + 5


@pytest.mark.parametrize("size", [(3_000_000, 1), (1, 3_000_000)])
def test_an_image_that_would_be_huge_when_resized_is_its_own_error(images, tiny_model, size):
    Image.new("L", size).save(images[3])
    found = list(decoded(images, tiny_model.preprocess))
    assert re.search(r"03\.png: .* would be resized to .*Cut the image", str(found[3][1]))
    assert sum(isinstance(item, DataError) for _, item in found) == 1


def test_memory_that_ends_while_resizing_is_the_images_error(images, tiny_model, monkeypatch):
    def fail(image, preprocess, source, **smaller):
        if source == images[3]:
            raise MemoryError
        return prepare(image, preprocess, source, **smaller)

    monkeypatch.setattr(module, "prepare", fail)
    found = list(decoded(images, tiny_model.preprocess))
    assert "03.png: not enough memory" in str(found[3][1])
    assert sum(isinstance(item, DataError) for _, item in found) == 1


def test_an_error_that_is_not_the_image_is_not_swallowed(images, tiny_model, monkeypatch):
    def fail(path, **_):
        raise ZeroDivisionError

    monkeypatch.setattr(module, "open_image", fail)
    with pytest.raises(ZeroDivisionError):
        list(decoded(images, tiny_model.preprocess))


def test_stopping_early_leaves_no_threads_and_does_not_finish_the_work(
    images, tiny_model, monkeypatch
):
    opened = []

    def slow(path, **_):
        opened.append(path)
        time.sleep(0.01)
        return open_image(path)

    monkeypatch.setattr(module, "open_image", slow)
    stream = decoded(images * 20, tiny_model.preprocess, workers=2, read_ahead=150)
    next(stream)
    stream.close()
    assert len(opened) < 150
    assert not [t for t in threading.enumerate() if t.name.startswith("vptkit-decode")]


def test_decoding_is_parallel(images, tiny_model, monkeypatch):
    barrier = threading.Barrier(3, timeout=10)  # passes only if three threads meet

    def meet(path, **_):
        barrier.wait()
        return open_image(path)

    monkeypatch.setattr(module, "open_image", meet)
    assert len(list(decoded(images, tiny_model.preprocess, workers=3))) == 12
