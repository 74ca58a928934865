from __future__ import annotations

import pytest

from tests.support.image_archives import png
from vptkit.datasets.listed_images import ListedImages
from vptkit.errors import DataError


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "train/000a.png", "x/b.png", "y/b.png", "y/v1.2.png", "c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"text" if name == "c.txt" else png(1))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.png", "a.png"),
        ("./a.png", "a.png"),
        ("a", "a.png"),
        ("000a", "train/000a.png"),
        ("000a.png", "train/000a.png"),
        ("train/000a", "train/000a.png"),
        ("x/b", "x/b.png"),
        ("v1.2", "y/v1.2.png"),
    ],
)
def test_a_name_means_one_image(folder, name, path):
    found = ListedImages(folder / "list.csv")
    assert found.find("w", name, "line 1").resolve() == folder / path
    with pytest.raises(DataError, match="stands in line 1 already"):
        found.find("w", path, "line 2")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("b", r"b may be one of 2 images: x/b\.png, y/b\.png"),
        ("d", "d: no such file below"),
        ("c", "c: no such file below"),
        ("../a", r"\.\./a: no such file below"),
    ],
)
def test_none_or_several(folder, name, message):
    with pytest.raises(DataError, match=f"w: {message}"):
        ListedImages(folder / "list.csv").find("w", name, "line 1")
