from __future__ import annotations

import errno
import os
import stat

import pytest

from vptkit.atomic_files import (
    atomic_file,
    atomic_folder,
    require_absent,
    sha256_of_file,
)
from vptkit.errors import OutputError


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "x.txt"
    with atomic_file(path) as part:
        part.write_text("new")
        assert not path.exists()
        assert part.parent == tmp_path
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failed_file_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def fail():
        with atomic_file(path) as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_of_an_ordinary_file(tmp_path):
    (tmp_path / "plain").touch()
    with atomic_file(tmp_path / "x") as part:
        part.touch()
    plain, ours = ((tmp_path / name).stat().st_mode for name in ("plain", "x"))
    assert stat.S_IMODE(ours) == stat.S_IMODE(plain)


def test_a_refusal_inside_the_block_is_not_blamed_on_the_output(tmp_path):
    with pytest.raises(PermissionError), atomic_file(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "somewhere else")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_may_not_be_written_is_an_output_error(tmp_path, monkeypatch):
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("vptkit.atomic_files.tempfile.mkstemp", refuse)
    expected = pytest.raises(OutputError, match=r"x: cannot be written: Permission denied")
    with expected, atomic_file(tmp_path / "x"):
        pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EFBIG, errno.EDQUOT])
def test_a_full_disk_is_an_output_error(tmp_path, number):
    def fail():
        with atomic_file(tmp_path / "x") as part:
            part.write_text("half")
            raise OSError(number, os.strerror(number))

    with pytest.raises(OutputError, match=r"x: cannot be written.*Nothing was left behind"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_another_system_error_is_not_disguised(tmp_path):
    with pytest.raises(ConnectionResetError), atomic_file(tmp_path / "x"):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


def test_a_folder_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "x"
    with atomic_folder(path) as part:
        (part / "sub").mkdir()
        (part / "sub" / "a").write_text("1")
        assert not path.exists()
    assert (path / "sub" / "a").read_text() == "1"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_folder_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "x"
    path.mkdir()
    (path / "old").touch()

    def fail():
        with atomic_folder(path, force=True) as part:
            (part / "new").touch()
            raise error

    with pytest.raises(error):
        fail()
    assert [p.name for p in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_force_replaces_a_folder(tmp_path):
    path = tmp_path / "x"
    for name in ("old", "new"):
        with atomic_folder(path, force=True) as part:
            (part / name).touch()
    assert [p.name for p in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


def test_without_force_a_folder_stays(tmp_path):
    path = tmp_path / "x"
    path.mkdir()
    with pytest.raises(OutputError, match="--force"), atomic_folder(path):
        pass
    assert list(tmp_path.iterdir()) == [path]


def test_require_absent(tmp_path):
    require_absent(tmp_path / "new", force=False)
    (tmp_path / "old").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    require_absent(tmp_path / "old", force=True)
    for name in ("old", "link"):
        with pytest.raises(OutputError, match=f"{name}: exists already"):
            require_absent(tmp_path / name, force=False)
    for force in (True, False):
        with pytest.raises(OutputError, match="does not exist"):
            require_absent(tmp_path / "no" / "x", force=force)


def test_digest(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of_file(tmp_path / "x") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
