"""The images that LoadGen asks for."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vptkit.errors import DataError
from vptkit.formats.bundle import open_bundle
from vptkit.images.image_file import image_files
from vptkit.images.preprocess import Preprocess
from vptkit.runtime.loadgen.sample_library import FileSamples, held_samples

SIZE = Preprocess(input_size=(3, 4, 4), mean=(0.5,) * 3, std=(0.5,) * 3)


def test_golden_images_or_noise(make_bundle):
    assert held_samples(open_bundle(make_bundle()), None).count == 5
    found = held_samples(open_bundle(make_bundle(golden=False)), None)
    assert found.count == found.loaded == 64
    assert found.batch([3, 3]).shape == (2, 24, 16, 3)


def test_files_are_loaded_and_forgotten(tmp_path):
    for i in range(3):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
    samples = FileSamples([*image_files(tmp_path)], SIZE)
    samples.load([2, 0, 2])
    assert samples.batch([0, 2])[:, 0, 0, 0].tolist() == [0, 2]
    samples.unload([2, 0])
    with pytest.raises(KeyError):
        samples.batch([2])


def test_broken_files_are_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    samples = FileSamples([*image_files(tmp_path)], SIZE)
    with pytest.raises(DataError, match=r"a\.png"):
        samples.load([0])
    assert np.asarray(samples.loaded) == 1
