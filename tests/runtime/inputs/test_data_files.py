from __future__ import annotations

import pytest

from tests.support.image_archives import png, write_tar
from vptkit.errors import DataError
from vptkit.runtime.inputs.data_files import walk_data_files
from vptkit.runtime.inputs.lookup import Lookup, NotFetchedError


def test_one_broken_archive_among_several(tmp_path):
    good = write_tar(tmp_path / "0.tar", {"a.png": png(1)})
    cut = write_tar(tmp_path / "1.tar", {"a.png": png(1), "b.png": bytes(9999)})
    cut.write_bytes(cut.read_bytes()[:3000])
    (tmp_path / "2.tar").write_bytes(b"no archive")
    write_tar(tmp_path / "3.tar", {"a.txt": b"x"})
    lookup = Lookup()
    files = [good, cut, tmp_path / "2.tar", tmp_path / "3.tar", tmp_path / "4.tar", good]
    found = [str(image) for image in walk_data_files(files, lookup)]
    assert found == [f"{good}: a.png", f"{cut}: a.png", f"{good}: a.png"]
    whys = ("not a whole plain tar", "not a whole plain tar", "no images in", "no such file")
    assert len(lookup.broken) == len(whys)
    for number, (fault, why) in enumerate(zip(lookup.broken, whys, strict=True), 1):
        assert fault.startswith(f"{tmp_path / str(number)}.tar: ")
        assert why in fault


def test_one_that_was_named_itself_is_an_error(tmp_path):
    (tmp_path / "2.tar").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"2\.tar: not a whole plain tar"):
        list(walk_data_files([tmp_path / "2.tar"], Lookup(), alone=True))


def test_nothing_is_fetched_where_images_are_counted():
    with pytest.raises(NotFetchedError, match=r"s3://b/a\.tar"):
        list(walk_data_files(["s3://b/a.tar"], Lookup(fetch=False)))
