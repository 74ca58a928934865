"""Shards: an image is found at its place in the archive."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.image_archives import png, write_tar
from vptkit.errors import DataError
from vptkit.images.dataset_files import read_data_files
from vptkit.images.image_file import PackedImage, open_image


def test_shards(tmp_path):
    """An image is found at its place in the archive, whatever comes between."""
    for split, base in (("train", 0), ("test", 100)):
        write_tar(
            tmp_path / split / "0.tar",
            {
                "./a.cls": b"1\n",
                "./a.PNG": png(base + 1),
                "./notes.txt": b"n" * 700,
                "./b.seg.png": png(99),  # of another kind, for its suffix is .seg.png
                "./b.png": png(base + 2),
                "./b.json": b'{"label": 0}',
            },
        )
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    found = read_data_files(tmp_path)
    assert {s: list(c) for s, c in found.items()} == {
        "test": ["cat", "dog"],
        "train": ["cat", "dog"],
    }
    image = found["test"]["dog"][0]
    assert isinstance(image, PackedImage)
    assert str(image) == f"{tmp_path / 'test' / '0.tar'}: a.PNG"
    assert np.asarray(open_image(image)).tolist() == np.full((4, 5, 3), 101).tolist()
    assert image.read_bytes() == png(101)
    assert found["train"]["cat"][0].read_bytes() == png(2)


def test_a_moved_archive_is_named(tmp_path):
    file = write_tar(tmp_path / "a.tar", {"a.png": png(1), "a.cls": b"0"})
    image = read_data_files(file)[""]["0"][0]
    file.rename(tmp_path / "b.tar")
    with pytest.raises(DataError, match=r"a\.tar: a\.png: No such file"):
        open_image(image)
