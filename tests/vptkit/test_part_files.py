"""What killed runs left goes with the next success; what is alive, a link or another's stays."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
from pathlib import Path

import pytest

from tests.support.children import PIPE, Child
from vptkit.atomic_files import atomic_file, atomic_folder, require_writable
from vptkit.errors import OutputError
from vptkit.part_files import part_of, remove_dead_parts

# Begins an output, says so, and waits: FUNCTION PATH.
MAKER = """
import sys
from pathlib import Path
from vptkit import atomic_files
with getattr(atomic_files, sys.argv[1])(Path(sys.argv[2])) as part:
    (part / "half" if part.is_dir() else part).write_text("half")
    print(flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def making(function, path):
    """A process that makes an output, until it is killed or its input ends."""
    command = [sys.executable, "-c", MAKER, function, str(path)]
    with Child(command, stdin=PIPE, stdout=PIPE) as child:
        child.stdout.readline()
        yield child


def make(function, path):
    """Success."""
    if function == "atomic_file":
        with atomic_file(path) as part:
            part.write_text("whole")
    else:
        with atomic_folder(path, force=True) as part:
            (part / "whole").touch()


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("function", ["atomic_file", "atomic_folder"])
def test_the_next_success_sweeps_up_the_dead_but_not_the_living(tmp_path, function):
    path = tmp_path / "x"
    with making(function, path) as dead, making(function, path) as living:
        dead.kill()
        dead.wait()
        assert len(names(tmp_path)) == 4
        make(function, tmp_path / "x.y")  # another output
        make(function, tmp_path / "y")
        assert len(names(tmp_path)) == 6
        make(function, path)
        kept = names(tmp_path)
        assert len(kept) == 5
        if function == "atomic_file":  # the neighbour, unharmed, puts its own there
            living.communicate()
            assert living.returncode == 0
            assert path.read_text() == "half"
        else:
            living.kill()
            living.wait()
            make(function, path)
    assert names(tmp_path) == ["x", "x.y", "y"]


def test_all_names_of_a_folder(tmp_path):
    for name in ("x", "y"):
        with making("atomic_file", tmp_path / name) as child:
            child.kill()
            child.wait()
    remove_dead_parts(tmp_path, ["z"])
    assert len(names(tmp_path)) == 4
    remove_dead_parts(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("left", ["lock", "part"])
def test_killed_between_the_two_files(tmp_path, left):
    """A lock alone is swept; a part alone may be of somebody who could not lock."""
    (tmp_path / f".x.abcdefgh.{left}").touch()
    make("atomic_file", tmp_path / "x")
    assert names(tmp_path) == ([".x.abcdefgh.part", "x"] if left == "part" else ["x"])


def test_links_are_not_followed(tmp_path):
    precious, outputs = tmp_path / "precious", tmp_path / "outputs"
    (precious / "inside").mkdir(parents=True)
    (precious / "file").touch()
    outputs.mkdir()
    (outputs / ".x.aaaaaaaa.lock").symlink_to(precious / "file")
    (outputs / ".x.aaaaaaaa.part").symlink_to(precious)
    (outputs / ".x.bbbbbbbb.lock").touch()
    (outputs / ".x.bbbbbbbb.part").symlink_to(precious)
    (outputs / ".x.cccccccc.lock").touch()
    (outputs / ".x.cccccccc.part").mkdir()
    (outputs / ".x.cccccccc.part" / "to").symlink_to(precious)
    (outputs / ".x.dddddddd.lock").mkdir()
    make("atomic_file", outputs / "x")
    assert names(precious) == ["file", "inside"]
    kept = [".x.aaaaaaaa.lock", ".x.aaaaaaaa.part", ".x.dddddddd.lock", "x"]
    assert names(outputs) == kept


def test_another_users_stay(tmp_path, monkeypatch):
    (tmp_path / ".x.aaaaaaaa.lock").touch()
    (tmp_path / ".x.aaaaaaaa.part").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        make("atomic_file", tmp_path / "x")
        assert len(names(tmp_path)) == 3
    make("atomic_file", tmp_path / "x")
    assert names(tmp_path) == ["x"]


def test_without_locks_nothing_is_swept(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with part_of(tmp_path / "x"):
        left = names(tmp_path)
        assert [name[-5:] for name in left] == [".part"]  # nobody can take it for a dead one's
        (tmp_path / ".x.aaaaaaaa.lock").touch()
        make("atomic_file", tmp_path / "x")
        assert names(tmp_path) == sorted([".x.aaaaaaaa.lock", *left, "x"])


def test_a_neighbour_that_takes_a_newborn_for_dead(tmp_path, monkeypatch):
    """It looks between the making of the lock and the locking; the owner takes another name."""
    real, calls = fcntl.flock, []

    def sweep_before(handle: int, kind: int) -> None:
        calls.append(handle)
        if len(calls) == 1:
            remove_dead_parts(tmp_path)
        real(handle, kind)

    monkeypatch.setattr(fcntl, "flock", sweep_before)
    make("atomic_file", tmp_path / "x")
    assert len(calls) > 2
    assert (tmp_path / "x").read_text() == "whole"
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC])
@pytest.mark.parametrize("call", ["open", "mkdir"])
def test_a_place_that_cannot_be_written_is_found_at_once(tmp_path, monkeypatch, number, call):
    real = getattr(os, call)

    def refuse(path: object, *rest: object, **named: object) -> object:
        if ".part" in str(path):
            raise OSError(number, os.strerror(number))
        return real(path, *rest, **named)

    monkeypatch.setattr(os, call, refuse)
    reached = []
    expected = pytest.raises(OutputError, match=f"x: cannot be written: {os.strerror(number)}")
    with expected, atomic_folder(tmp_path / "x"):
        reached.append(1)
    assert not reached
    assert names(tmp_path) == []


def test_a_full_disk_is_found_before_the_work(tmp_path, monkeypatch):
    """Names can still be made on it, content cannot."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    with pytest.raises(OutputError, match="x: cannot be written: No space left"):
        require_writable(tmp_path / "x")
    assert names(tmp_path) == []


@pytest.mark.parametrize("place", ["/proc", "/sys", "/dev/null"])
def test_odd_places(place):
    with pytest.raises(OutputError, match="x"), atomic_file(Path(place) / "x"):
        pass
