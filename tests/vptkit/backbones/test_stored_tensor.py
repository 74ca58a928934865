"""Tensors that stay in their file."""

from __future__ import annotations

import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from vptkit.backbones.stored_tensor import Overlaid, StoredTensor, StoredTensors, joined, shapes_of
from vptkit.errors import DataError
from vptkit.formats.tensor_file import read_tensors, stored_tensors

RNG = np.random.default_rng(0)
KINDS = {
    "f4": RNG.standard_normal((30, 40)).astype("f4"),
    "f8": RNG.standard_normal((2, 3, 4)),
    "f2": RNG.standard_normal(7).astype("f2"),
    "i8": np.arange(5),
    "?": np.array([True, False]),
    "scalar": np.array(3.0, "f4"),
    "empty": np.zeros((0, 4), "f4"),
}


class Counted:
    """A stored tensor that notes how often it is read."""

    def __init__(self, value):
        self.reads, self.value = 0, value
        self.tensor = StoredTensor(value.shape, self.read)

    def read(self):
        self.reads += 1
        return self.value


@pytest.fixture
def path(tmp_path):
    save_file(KINDS, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_what_is_read_is_what_is_in_the_file(path):
    whole = read_tensors(path, DataError)
    with path.open("rb") as stream:
        found = stored_tensors(stream, path, DataError)
        assert shapes_of(found) == shapes_of(whole) == {k: v.shape for k, v in KINDS.items()}
        for name in reversed(list(found)):  # in any order, and as often as one likes
            for _ in range(2):
                value = np.asarray(found[name])
                np.testing.assert_array_equal(value, KINDS[name])
                assert value.dtype == whole[name].dtype
    assert np.asarray(Counted(KINDS["f4"]).tensor, dtype=np.float64).dtype == np.float64


def _cut(path):
    os.truncate(path, path.stat().st_size - 8)


def _grown(path):
    with path.open("ab") as stream:
        stream.write(b"more")


def _written_over(path):
    with path.open("r+b") as stream:
        stream.seek(-8, os.SEEK_END)
        stream.write(b"\1" * 8)


def _put_back(path):
    before = path.stat()
    _written_over(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [_cut, _grown, _written_over, _put_back])
def test_a_file_that_is_changed_meanwhile(path, change):
    """Also by who puts its time back; and none of it ends the process, as with a mapped file."""
    hour_ago = path.stat().st_mtime_ns - 3600 * 10**9
    os.utime(path, ns=(hour_ago, hour_ago))
    with path.open("rb") as stream:
        found = stored_tensors(stream, path, DataError)
        np.asarray(found["f4"])
        _wait_for_another_time(path)
        change(path)
        for name in ("f4", "f8"):
            with pytest.raises(DataError, match=r"w\.safetensors.*(was changed|became shorter)"):
                np.asarray(found[name])


def _wait_for_another_time(path):
    """Until the file system's clock, which has steps of some milliseconds, has gone on."""
    beside = path.with_name("clock")
    beside.touch()
    begin = beside.stat().st_ctime_ns
    while beside.stat().st_ctime_ns == begin:
        beside.touch()


def test_another_file_of_the_same_name_is_not_looked_at(path):
    """The descriptor is read, not the name: a new version put in place of the old one is none of ours."""
    with path.open("rb") as stream:
        found = stored_tensors(stream, path, DataError)
        save_file({"f4": np.zeros(3, "f4")}, path.with_name("new"))
        try:
            path.with_name("new").replace(path)
            value = np.asarray(found["f4"])
        except DataError as error:  # its last name is gone, which is a change, too
            assert "was changed" in str(error)  # noqa: PT017 -- either is right
        else:
            np.testing.assert_array_equal(value, KINDS["f4"])


def test_a_table_reads_what_is_asked_for_and_keeps_nothing():
    one, other = Counted(KINDS["f4"]), Counted(KINDS["i8"])
    seen = []

    def checked(name, value):
        seen.append(name)
        return value.astype(np.float32)

    table = StoredTensors({"a": one.tensor, "b": other.tensor, "c": np.ones(2)}, checked)
    assert (list(table), len(table), "b" in table, "d" in table) == (
        ["a", "b", "c"],
        3,
        True,
        False,
    )
    assert table.shapes == {"a": (30, 40), "b": (5,), "c": (2,)}
    upper = Overlaid({"b": np.zeros(5), "d": np.ones(1)}, table)
    assert (list(upper), len(upper), "a" in upper, "e" in upper) == (
        ["a", "b", "c", "d"],
        4,
        True,
        False,
    )
    assert (one.reads, other.reads) == (0, 0)
    assert not upper["b"].any()
    assert table["a"].dtype == upper["a"].dtype == np.float32
    assert (one.reads, other.reads, seen) == (2, 0, ["a", "a"])
    with pytest.raises(KeyError):
        upper["e"]


def test_joined_tensors_are_read_when_they_are_asked_for():
    one, other = Counted(KINDS["f4"]), KINDS["f4"][:5]
    both = joined([one.tensor, other])
    assert (both.shape, both.ndim, len(both), one.reads) == ((35, 40), 2, 35, 0)
    np.testing.assert_array_equal(np.asarray(both), np.concatenate([KINDS["f4"], other]))
    assert isinstance(joined([other, other]), np.ndarray)
    with pytest.raises(ValueError, match="dimension"):
        joined([one.tensor, KINDS["i8"]])
