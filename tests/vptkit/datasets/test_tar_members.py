from __future__ import annotations

import gzip
import tarfile

import pytest

from tests.support.image_archives import write_tar
from vptkit.datasets.tar_members import key_and_suffix, tar_members
from vptkit.errors import DataError


def test_files_where_they_lie(tmp_path):
    file = write_tar(tmp_path / "a.tar", {"d/a.jpg": b"one", "b" * 200 + ".png": b"two"})
    with tarfile.open(file, "a") as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    whole = file.read_bytes()
    found = [(m.name, whole[m.offset_data : m.offset_data + m.size]) for m, _ in tar_members(file)]
    assert found == [("d/a.jpg", b"one"), ("b" * 200 + ".png", b"two")]


def test_an_archive_that_ends_within_a_member(tmp_path):
    file = write_tar(tmp_path / "a.tar", {"a.jpg": b"x" * 600, "b.jpg": b"y" * 600})
    file.write_bytes(file.read_bytes()[: 512 + 1024 + 512 + 100])
    members = tar_members(file)
    assert next(members)[0].name == "a.jpg"
    with pytest.raises(DataError, match=r"a\.tar: not a whole plain tar file"):
        list(members)


def test_a_compressed_archive(tmp_path):
    file = write_tar(tmp_path / "a.tar", {"a.jpg": b"x"})
    file.write_bytes(gzip.compress(file.read_bytes()))
    with pytest.raises(DataError, match="If it is compressed, decompress it"):
        list(tar_members(file))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a/b.c.JPG", ("a/b", ".c.jpg")), ("a.d/b", ("a.d/b", "")), (".x", ("", ".x"))],
)
def test_key_and_suffix(name, expected):
    assert key_and_suffix(name) == expected
