"""Shards: an image is found at its place in the archive."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest

from tests.support.image_archives import png, write_tar
from vptkit.errors import DataError
from vptkit.images.dataset_files import read_data_files
from vptkit.images.image_file import PackedImage, open_image
from vptkit.images.webdataset import read_shards


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
    with pytest.raises(DataError, match=r"a\.tar: no such file"):
        open_image(image)


def shard(folder, **members):
    named = {name.replace("_", "."): content for name, content in members.items()}
    return write_tar(folder / "s.tar", named)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a_png": b"x"}, r"the sample a has no label"),
        ({"a_cls": b"1"}, r"the sample a has no image"),
        ({"a_png": b"x", "a_jpg": b"y", "a_cls": b"1"}, r"a has two images, a\.png and a\.jpg"),
        ({"a_png": b"x", "a_json": b'{"label": 1'}, r"a\.json is broken"),
        ({"a_png": b"x", "a_json": b'{"caption": 1}'}, r"the sample a has no label"),
    ],
)
def test_a_sample_that_is_wrong_is_named(tmp_path, members, message):
    with pytest.raises(DataError, match=rf"s\.tar: .*{message}"):
        read_shards([shard(tmp_path, **members)], tmp_path)


def test_names_stand_beside_the_shards(tmp_path):
    """A .cls counts before a .json; numbers point into classnames.txt."""
    file = shard(tmp_path, a_png=png(1), a_json=b'{"label": 0}', a_cls=b" 1\n")
    assert list(read_shards([file], tmp_path)[""]) == ["1"]
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    assert list(read_shards([file], tmp_path)[""]["dog"])
    (tmp_path / "classnames.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"classnames\.txt: not a text in UTF-8"):
        read_shards([file], tmp_path)


def test_a_compressed_shard(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w:gz"):
        pass
    with pytest.raises(DataError, match=r"not a whole plain tar file: .*decompress it"):
        read_shards([tmp_path / "s.tar"], tmp_path)
    with pytest.raises(DataError, match=r"t\.tar: No such file"):
        read_shards([tmp_path / "t.tar"], tmp_path)
