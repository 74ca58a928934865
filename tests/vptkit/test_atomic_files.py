from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.children import run_child
from vptkit import atomic_files
from vptkit.atomic_files import (
    atomic_file,
    atomic_folder,
    locked_folder,
    recover_folder,
    require_absent,
    sha256_of_file,
    sha256_of_stream,
)
from vptkit.errors import OutputError
from vptkit.regular_files import names_in

if TYPE_CHECKING:
    from pathlib import Path


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

    monkeypatch.setattr("vptkit.part_files.tempfile.mkstemp", refuse)
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


@pytest.fixture(params=["exchanged in one step", "in steps"])
def exchanging(request, monkeypatch) -> str:
    """With renameat2, and on a kernel or a file system that cannot exchange."""
    if request.param == "in steps":
        monkeypatch.setattr(atomic_files, "_renameat2", lambda *_: False)
    return request.param


def folder_of(path: Path, name: str) -> Path:
    path.mkdir()
    (path / name).touch()
    return path


def test_a_folder_is_replaced(tmp_path, exchanging):
    path = folder_of(tmp_path / "x", "old")
    with atomic_folder(path, force=True) as part:
        (part / "new").touch()
    assert [p.name for p in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["link", "dangling link", "file", "empty folder"])
def test_whatever_has_the_name_is_replaced_and_nothing_behind_it(tmp_path, exchanging, kind):
    outside = folder_of(tmp_path / "outside", "precious")
    path = tmp_path / "x"
    if kind.endswith("link"):
        path.symlink_to(outside if kind == "link" else "nowhere")
    elif kind == "file":
        path.touch()
    else:
        path.mkdir()
    with atomic_folder(path, force=True) as part:
        (part / "new").touch()
    assert not path.is_symlink()
    assert [p.name for p in path.iterdir()] == ["new"]
    assert [p.name for p in outside.iterdir()] == ["precious"]
    assert sorted(tmp_path.iterdir()) == [outside, path]


def test_one_step_where_the_system_can(tmp_path):
    """Not at any moment is there nothing under the name."""
    one, two = folder_of(tmp_path / "one", "1"), folder_of(tmp_path / "two", "2")
    assert atomic_files._renameat2(os.fsencode(one), os.fsencode(two), atomic_files._EXCHANGE)
    assert ([p.name for p in one.iterdir()], [p.name for p in two.iterdir()]) == (["2"], ["1"])
    with pytest.raises(FileExistsError):
        atomic_files._rename(one, two, atomic_files._NOREPLACE)
    with pytest.raises(FileNotFoundError):
        atomic_files._rename(one, tmp_path / "no" / "x", atomic_files._NOREPLACE)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_a_file_system_that_cannot_exchange(tmp_path, monkeypatch, number):
    class Library:
        def renameat2(self, *_):
            return -1

    monkeypatch.setattr(atomic_files.ctypes, "CDLL", lambda *_, **__: Library())
    monkeypatch.setattr(atomic_files.ctypes, "get_errno", lambda: number)
    path = folder_of(tmp_path / "x", "old")
    for name in ("new", "newer"):
        with atomic_folder(path, force=True) as part:
            (part / name).touch()
        assert [p.name for p in path.iterdir()] == [name]
    assert list(tmp_path.iterdir()) == [path]


def test_a_library_without_the_function(tmp_path, monkeypatch):
    real = atomic_files.ctypes.CDLL(None, use_errno=True)

    class Library:
        syscall = real.syscall

    monkeypatch.setattr(atomic_files.ctypes, "CDLL", lambda *_, **__: Library())
    one, two = folder_of(tmp_path / "one", "1"), folder_of(tmp_path / "two", "2")
    assert atomic_files._renameat2(os.fsencode(one), os.fsencode(two), atomic_files._EXCHANGE)
    assert [p.name for p in one.iterdir()] == ["2"]


KILLED = """
import os, shutil, sys
from pathlib import Path
from vptkit import atomic_files

path, how, left = Path(sys.argv[1]), sys.argv[2], 0


def counted(real):
    def call(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return real(*arguments, **named)

    return call


def replace():
    if how == "in steps":
        atomic_files._renameat2 = lambda *_: False
    names = [(os, n) for n in ("rename", "unlink", "rmdir", "mkdir", "chmod", "fsync")]
    for where, name in (*names, (atomic_files, "_renameat2")):
        setattr(where, name, counted(getattr(where, name)))
    with atomic_files.atomic_folder(path, force=True) as part:
        (part / "new").write_text("whole")
        (part / "newer").write_text("whole")
    os._exit(0)


for number in range(60):
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    (path / "old").write_text("whole")
    left, child = number, os.fork()
    if not child:
        replace()
    status = os.waitpid(child, 0)[1]
    there = path.is_dir()
    atomic_files.recover_folder(path)
    print(there, *sorted(p.name for p in path.iterdir() if p.read_text() == "whole"))
    if status == 0:
        break
"""


@pytest.mark.parametrize("how", ["in one step", "in steps"])
def test_killed_at_any_operation_something_whole_has_the_name(tmp_path, how):
    """Killed between taking the old folder away and naming the new one, both were lost."""
    out = run_child([sys.executable, "-c", KILLED, tmp_path / "x", how]).stdout
    found = [line.split() for line in out.splitlines()]
    assert 5 < len(found) < 60
    assert all(names in (["old"], ["new", "newer"]) for _, *names in found)
    assert found[0][1:] == ["old"]
    assert found[-1] == ["True", "new", "newer"]
    gone = [there for there, *_ in found if there == "False"]
    assert bool(gone) == (how == "in steps")


def test_what_was_moved_aside_comes_back_unless_its_writer_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_files, "_PATIENCE_S", 0.02)
    path, aside = tmp_path / "x", tmp_path / ".x.replaced-by-vptkit"
    folder_of(aside, "old")
    handle = os.open(aside, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    recover_folder(path)
    assert not path.exists()
    os.close(handle)
    recover_folder(path)
    assert (path / "old").exists()
    assert not aside.exists()
    folder_of(aside, "older")
    recover_folder(path)  # the new one had its name already
    assert (path / "old").exists()
    assert not aside.exists()


def test_a_folder_that_appears_meanwhile_is_not_replaced_without_force(tmp_path):
    path = tmp_path / "x"

    def late():
        with atomic_folder(path) as part:
            (part / "new").touch()
            folder_of(path, "of somebody else")

    with pytest.raises(OutputError, match="exists already"):
        late()
    assert [p.name for p in path.iterdir()] == ["of somebody else"]
    assert list(tmp_path.iterdir()) == [path]


def test_an_exchange_waits_for_who_edits_the_folder(tmp_path):
    path, order = folder_of(tmp_path / "x", "old"), []

    def replace():
        with atomic_folder(path, force=True) as part:
            (part / "new").touch()
        order.append("replaced")

    thread = threading.Thread(target=replace)
    with locked_folder(path):
        thread.start()
        thread.join(0.2)
        assert (path / "old").exists()
        order.append("edited")
    thread.join(30)
    assert order == ["edited", "replaced"]
    with locked_folder(path) as handle:
        assert names_in(handle) == ["new"]
    with pytest.raises(OutputError, match="cannot be locked"), locked_folder(tmp_path / "no"):
        pass


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


def test_a_digest_is_of_the_file_and_not_of_what_was_buffered(tmp_path):
    (tmp_path / "x").write_bytes(b"xyz")
    with (tmp_path / "x").open("rb") as stream:
        stream.read(1)
        (tmp_path / "x").write_bytes(b"abc")
        assert sha256_of_stream(stream) == sha256_of_file(tmp_path / "x")
        assert stream.read() == b"yz"
