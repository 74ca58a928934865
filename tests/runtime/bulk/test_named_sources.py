from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from tests.support.image_archives import write_tar
from vptkit.errors import DataError
from vptkit.runtime.bulk.named_sources import NamedImages

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path, monkeypatch) -> Path:
    names = ("a.jpg", "b.png", "in/c.jpg", "in/d.HEIC", "in/e.heic", "in/.f.mov", "two\nlines.jpg")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "lost.jpg").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def named(*sources: str, given: bytes = b"") -> list[str]:
    return [str(path) for path in NamedImages(sources, io.BytesIO(given))]


def test_what_gives_nothing_is_told_and_the_others_go_on(tree):
    found = NamedImages(["a.jpg", "*.bmp", "empty", "nowhere.jpg", "in", "a.jpg"])
    assert [str(path) for path in found] == ["a.jpg", "in/c.jpg"]
    assert [text.split(":")[0] for text in found.empty] == ["*.bmp", "empty"]
    assert [text.split(":")[0] for text in found.missing] == ["nowhere.jpg"]
    assert found.skipped == {".heic": 2}


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (
            ["nowhere", "*.bmp"],
            r"nowhere: no such file or folder \(here lies .*; \*\.bmp: no images",
        ),
        (["n1", "n2", "n3", "n4", "n5"], r"n3: no such file or folder .*; and 2 more"),
        (["empty"], "empty: no images there"),
        ([], "no sources"),
        (["-"], "-: no names on standard input"),
    ],
)
def test_nothing_at_all_is_an_error(tree, sources, message):
    with pytest.raises(DataError, match=message):
        list(NamedImages(sources))


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\0"])
def test_names_on_standard_input(tree, end):
    given = end.join([b"b.png", b"in", b"*.bmp", b""])
    assert named("-", given=given) == ["b.png", "in/c.jpg"]
    assert named("a.jpg", "-", given=given) == ["a.jpg", "b.png", "in/c.jpg"]


def test_a_name_of_two_lines_is_ended_by_nul(tree):
    assert named("-", given=b"two\nlines.jpg\0a.jpg") == ["two\nlines.jpg", "a.jpg"]


def test_a_link_to_nothing_is_an_image_that_cannot_be_read(tree):
    assert named("lost.jpg") == ["lost.jpg"]


def test_endless_names_end(tree, monkeypatch):
    monkeypatch.setattr("vptkit.runtime.bulk.named_sources._MAX_BYTES", 5)
    with pytest.raises(DataError, match="more than 5 bytes of names"):
        named("-", given=b"a.jpg\nb")


def test_images_of_lists_and_archives(tree):
    (tree / "l.csv").write_text("path\na.jpg\nin/c.jpg\na.jpg\n")
    tar = write_tar(tree / "s.tar", {"x.png": b"1", "y.npy": b"2"})
    assert named("l.csv") == ["a.jpg", "in/c.jpg"]
    found = NamedImages(["l.csv"])
    assert (len(list(found)), found.skipped) == (2, {"named twice": 1})
    found = NamedImages(["in", "l.csv", "s.tar", "lost.tar", "*.tar"])
    assert [str(one) for one in found] == ["in/c.jpg", "a.jpg", "s.tar: x.png"]
    assert (len(found.missing), len(found.broken)) == (1, 0)
    assert found.count() == 3
    tar.write_bytes(tar.read_bytes()[:700])
    found = NamedImages(["s.tar", "l.csv"])
    assert [str(one) for one in found] == ["s.tar: x.png", "a.jpg", "in/c.jpg"]
    assert [text.split(":")[0] for text in found.broken] == ["s.tar"]


def test_names_of_objects_on_standard_input(tree, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.pipe_file("/b/a.jpg", b"1")
    store.pipe_file("/b/l.csv", b"path\na.jpg\n")
    given = b"memory://b/a.jpg\nmemory://b/\nmemory://b/l.csv\n"
    assert named("-", given=given) == ["memory://b/a.jpg"]
    assert NamedImages(["memory://b/"]).count() == 1
    assert NamedImages(["memory://b/l.csv"]).count() is None  # it is not fetched for that
    store.rm("/b", recursive=True)
