from __future__ import annotations

import pickle  # noqa: TID251 -- images are sent to other processes

import pytest

from tests.support.image_archives import png, write_tar
from vptkit.errors import DataError
from vptkit.runtime.inputs.lookup import Lookup
from vptkit.runtime.inputs.tar_images import walk_tar


def test_images_by_their_whole_names(tmp_path):
    file = write_tar(
        tmp_path / "0.tar",
        {"./a/cat.jpg": b"one", "a/cat.cls": b"1", "b/cat.PNG": png(2), "ü\n.webp": b"3"},
    )
    found = list(walk_tar(file, lookup := Lookup()))
    assert [str(image) for image in found] == [
        f"{file}: {name}" for name in ("a/cat.jpg", "b/cat.PNG", "ü\n.webp")
    ]
    assert [image.name for image in found] == ["cat.jpg", "cat.PNG", "ü\n.webp"]
    assert [image.read_bytes() for image in found] == [b"one", png(2), b"3"]
    assert not lookup.skipped
    assert pickle.loads(pickle.dumps(found[1])).read_bytes() == png(2)


def test_what_stands_beside_the_image_of_a_sample(tmp_path):
    file = write_tar(
        tmp_path / "0.tar",
        {
            "a.seg.png": png(1),
            "a.jpg": b"a",
            "a.npy": b"n",
            "2024.05.01.jpg": b"b",
            "2024.05.02.jpg": b"c",
            "._a.jpg": b"hidden",
            ".x/a.jpg": b"hidden",
        },
    )
    found = list(walk_tar(file, lookup := Lookup()))
    assert [image.member for image in found] == ["a.jpg", "2024.05.01.jpg", "2024.05.02.jpg"]
    assert lookup.skipped == {".npy": 1}


def test_a_sample_of_very_many_members_is_not_gathered(tmp_path):
    names = [f"IMG.{number:04}.jpg" for number in range(250)]
    file = write_tar(tmp_path / "0.tar", dict.fromkeys(names, b"x"))
    assert [image.member for image in walk_tar(file, Lookup())] == names


def test_an_archive_that_became_shorter(tmp_path):
    file = write_tar(tmp_path / "0.tar", {"a.jpg": b"x" * 2000})
    (image,) = walk_tar(file, Lookup())
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"0\.tar: a\.jpg: the archive ends within"):
        image.read_bytes()
    file.unlink()
    with pytest.raises(DataError, match=r"0\.tar: no such file"):
        image.read_bytes()
