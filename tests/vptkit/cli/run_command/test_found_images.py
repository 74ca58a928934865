from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.support.image_archives import png, write_tar
from vptkit.cli.run_command import found_images
from vptkit.cli.run_command.found_images import FoundImages
from vptkit.errors import DataError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "x.heic"):
        (tmp_path / name).write_bytes(b"x" if name.endswith("c") else png(1))
    write_tar(tmp_path / "s.tar", {"c.png": png(2), "a.npy": b"x"})
    return tmp_path


def test_few_are_known_at_once_and_passed_ones_left_out(tree, capsys):
    found = FoundImages([".", "s.tar", "z.tar"], None, allow_outside=False)
    images, total = found.look({"nothing"})
    assert ([str(image) for image in images], total) == (["a.png", "b.png", "s.tar: c.png"], 3)
    assert found.faults == [
        "1 of the sources is missing: z.tar: no such file or folder (here lies a.png, b.png, x.heic)"
    ]
    found.tell()
    err = capsys.readouterr().err
    assert "warning: z.tar: no such file" in err
    assert err.endswith("(.heic 1, .npy 1, .tar 1); HEIC is not read, convert it to JPEG first\n")


def test_many_are_counted_beside_the_work(tree, monkeypatch):
    monkeypatch.setattr(found_images, "_FIRST", 2)
    found = FoundImages(["*.png", "s.tar"], None, allow_outside=False)
    images, total = found.look(())
    assert total is None
    bar = SimpleNamespace(total=None)
    monkeypatch.setattr(found_images.threading.Thread, "start", lambda thread: thread.run())
    found.count(bar, done=1)
    assert bar.total == 2
    assert len(list(images)) == 3


def test_what_a_journal_says_of_them(tree):
    sources = ["s3://b/x", "https://h/x.jpg?token=abc"]
    found = FoundImages(sources, "image=a", allow_outside=True)
    assert found.described() == {
        "sources": ["s3://b/x", "https://h/x.jpg?token=***"],
        "columns": "image=a",
        "allow_outside": True,
    }
    plain = FoundImages(["a.png"], None, allow_outside=False).described()
    assert plain == {"sources": ["a.png"], "columns": None, "allow_outside": None}
    with pytest.raises(DataError, match="--columns"):
        FoundImages(["a.png"], "picture=a", allow_outside=False)
