from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vptkit.errors import DataError
from vptkit.runtime.inputs.image_sources import find_images

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path, monkeypatch) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", "sub/c.webp", "sub/deep/d.tif", ".hidden/e.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(paths: list[Path], tree: Path) -> list[str]:
    return [p.absolute().relative_to(tree).as_posix() for p in paths]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["."], ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.tif"]),
        (["sub"], ["sub/c.webp", "sub/deep/d.tif"]),
        (["b.jpg", "a.PNG"], ["b.jpg", "a.PNG"]),
        (["notes.txt"], ["notes.txt"]),  # named itself: the decoder will say what it thinks
        (["*"], ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.tif"]),
        (["*.jpg"], ["b.jpg"]),
        (["**/*.tif"], ["sub/deep/d.tif"]),
        (["sub/**"], ["sub/c.webp", "sub/deep/d.tif"]),
        (["sub/deep", "."], ["sub/deep/d.tif", "a.PNG", "b.jpg", "sub/c.webp"]),
    ],
)
def test_sources(tree, sources, expected):
    assert names(find_images(sources), tree) == expected


def test_an_absolute_glob(tree):
    assert names(find_images([str(tree / "*.jpg")]), tree) == ["b.jpg"]


def test_a_file_whose_name_looks_like_a_glob(tree):
    (tree / "x[1].jpg").touch()
    assert names(find_images(["x[1].jpg"]), tree) == ["x[1].jpg"]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["nowhere.jpg"], r"nowhere\.jpg: no such file"),
        (["b.jpg", "nowhere"], "nowhere: no such file"),
        (["empty"], "empty: no images there"),
        (["*.bmp"], r"\*\.bmp: no images there"),
        (["*.txt"], r"\*\.txt: no images there"),
        ([], "no sources"),
    ],
)
def test_sources_that_give_nothing_are_errors(tree, sources, message):
    with pytest.raises(DataError, match=message):
        find_images(sources)


@pytest.mark.parametrize("name", ["a\0b", "a" * 300, "a/" * 3000, "[" * 300, "a\0*"])
def test_a_name_that_no_file_can_have(name):
    with pytest.raises(DataError, match=r"no such file|no images there"):
        find_images([name])
