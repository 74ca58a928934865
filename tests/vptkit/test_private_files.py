"""Locks, keys and folders: this user's, or refused; nothing is followed, nothing truncated."""

from __future__ import annotations

import os
import threading

import pytest

from tests.support import architecture
from vptkit.errors import OutputError
from vptkit.private_files import (
    create_private,
    locked,
    not_private,
    open_private,
    private_folder,
    require_unshared_parents,
    user_folder,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def lock(path, waiting=lambda: None):
    return locked(path, OutputError, waiting=waiting, remedy="Choose another name.")


def test_a_lock_is_not_taken_through_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".lock").symlink_to(victim)
    with (
        pytest.raises(OutputError, match=r"symbolic link.*Choose another"),
        lock(tmp_path / ".lock"),
    ):
        pass
    (tmp_path / "dangling").symlink_to(tmp_path / "made")
    with pytest.raises(OutputError, match="symbolic link"), lock(tmp_path / "dangling"):
        pass
    assert victim.read_text() == "precious"
    assert not (tmp_path / "made").exists()


def test_a_lock_writes_nothing(tmp_path):
    """A hard link is a file's other name: it cannot be told from a lock, so it must do no harm."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    os.link(victim, tmp_path / ".lock")
    with lock(tmp_path / ".lock"):
        pass
    assert victim.read_text() == "precious"


def test_what_is_no_file_is_no_lock(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "folder", "no/such"):
        with pytest.raises(OutputError, match=name), lock(tmp_path / name):
            pass


@as_root
def test_a_lock_of_another_user_is_refused(tmp_path):
    (tmp_path / ".lock").touch()
    os.chown(tmp_path / ".lock", 12345, 12345)
    with pytest.raises(OutputError, match="belongs to user 12345"), lock(tmp_path / ".lock"):
        pass


def test_who_waits_is_told_once(tmp_path):
    order, inside, leave = [], threading.Event(), threading.Event()

    def first():
        with lock(tmp_path / ".lock"):
            inside.set()
            leave.wait(30)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(30)
    with lock(tmp_path / ".lock", leave.set):
        order.append("second")
    thread.join(30)
    assert order == ["first", "second"]


def test_a_folder_is_made_for_this_user_or_mended(tmp_path):
    for name, mode in (("new", None), ("old", 0o777)):
        if mode is not None:
            (tmp_path / name).mkdir()
            (tmp_path / name).chmod(mode)
        private_folder(tmp_path / name, OutputError, remedy="")
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_a_link_or_a_file_is_refused(tmp_path):
    (tmp_path / "real").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    for name in ("link", "file", "file/x"):
        with pytest.raises(OutputError, match=r"cannot be written.*Do it\."):
            private_folder(tmp_path / name, OutputError, remedy="Do it.")
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o755


@as_root
def test_a_folder_of_another_user_is_refused(tmp_path):
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 12345, 12345)
    with pytest.raises(OutputError, match="belongs to user 12345"):
        private_folder(tmp_path / "theirs", OutputError, remedy="")


@as_root
def test_whose_a_file_is(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.touch(mode=0o600)
    open_private(tmp_path, "file", OutputError).close()
    path.chmod(0o620)
    with pytest.raises(OutputError, match=r"others may write it \(mode 0620\)"):
        open_private(tmp_path, "file", OutputError)
    path.chmod(0o600)
    os.chown(path, 12345, 12345)
    with pytest.raises(OutputError, match="belongs to user 12345"):
        open_private(tmp_path, "file", OutputError)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert not_private(path.stat()) is None
    os.chown(path, 0, 0)
    assert not_private(path.stat()) is None  # root may


def test_a_private_file_is_whole_and_the_first_stays(tmp_path):
    create_private(tmp_path / "key", b"one")
    create_private(tmp_path / "key", b"two")
    assert (tmp_path / "key").read_bytes() == b"one"
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def test_a_private_file_is_not_made_through_a_link(tmp_path):
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    create_private(tmp_path / "key", b"one")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_everybody_may_replace(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    require_unshared_parents(tmp_path / "a/b", OutputError)
    (tmp_path / "a").chmod(0o1777)
    require_unshared_parents(tmp_path / "a/b", OutputError)
    (tmp_path / "a").chmod(0o777)
    with pytest.raises(OutputError, match="everybody may write"):
        require_unshared_parents(tmp_path / "a/b", OutputError)


@as_root
def test_whose_home_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert user_folder("XDG_CONFIG_HOME", ".config") == tmp_path / ".config"
    os.chown(tmp_path, 12345, 12345)  # as under sudo -E
    assert user_folder("XDG_CONFIG_HOME", ".config") != tmp_path / ".config"
    monkeypatch.setenv("XDG_CONFIG_HOME", "/named")
    assert str(user_folder("XDG_CONFIG_HOME", ".config")) == "/named"


# Module → why it locks by itself.
MAY_LOCK = {
    "vptkit.private_files": "the one way for files",
    "vptkit.atomic_files": "the folder of a bundle itself, which has no file to lock",
    "vptkit.part_files": "files of its own, which are removed while they are held",
    "vptkit.runtime.bulk.run_journal": "the file itself, which is removed while it is held",
    "vptkit.runtime.ray_data.parts_folder": "the folder of the parts itself, while a run goes on",
    "vptkit.runtime.remote.board_agent": "runs where nothing of ours is yet; folders too",
}


def test_there_is_no_other_way_to_lock():
    users = {
        name
        for name, module in architecture.modules().items()
        if "fcntl" in module.path.read_text(encoding="utf-8")
    }
    assert users == set(MAY_LOCK)
