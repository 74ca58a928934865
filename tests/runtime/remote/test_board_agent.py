"""The board's side: its cache, and how it ends what it started."""

from __future__ import annotations

import hashlib
import io
import sys

import pytest

from tests.support.children import DEVNULL, PIPE, Child
from tests.support.sshd import wait_for_end
from vptkit.runtime.remote import board_agent
from vptkit.runtime.remote.board_agent import Store

CONTENT = b"some bytes"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "cache")
    yield made
    made.close()


def test_a_file_is_there_once_it_is_whole(store):
    assert store.missing({DIGEST: 10}) == [DIGEST]
    with pytest.raises(EOFError, match="1 bytes too early"):
        store.take(DIGEST, 10, io.BytesIO(CONTENT[:-1]))
    assert store.missing({DIGEST: 10}) == [DIGEST]
    store.take(DIGEST, 10, io.BytesIO(CONTENT + b"the next file"))
    assert store.missing({DIGEST: 10}) == []
    store.lay_out({"a/b": DIGEST})
    assert (store.run / "a/b").read_bytes() == CONTENT


def test_a_damaged_file_is_missing(store):
    store.take(DIGEST, 10, io.BytesIO(CONTENT))
    (store.root / "files" / DIGEST).write_bytes(b"other byte")
    assert store.missing({DIGEST: 10}) == [DIGEST]
    assert not (store.root / "files" / DIGEST).exists()


def test_two_names_for_one_place_are_refused(store):
    store.take(DIGEST, 10, io.BytesIO(CONTENT))
    with pytest.raises(ValueError, match="'a//b' is there twice"):
        store.lay_out({"a/b": DIGEST, "a//b": DIGEST})


def test_nobody_else_reads_the_cache(store):
    assert store.root.stat().st_mode & 0o077 == 0


def test_a_run_that_ends_while_it_is_looked_at(store, monkeypatch):
    gone = store.root / "runs/gone"
    monkeypatch.setattr(board_agent.Path, "iterdir", lambda _: iter([gone, store.run]))
    assert store.clean() == {"freed": 0, "in_use": 0}


def test_files_without_hard_links_are_copied(store, monkeypatch):
    def refuse(*_):
        raise OSError("not on this file system")

    monkeypatch.setattr(board_agent.os, "link", refuse)
    store.take(DIGEST, 10, io.BytesIO(CONTENT))
    store.lay_out({"a": DIGEST})
    assert (store.run / "a").read_bytes() == CONTENT


def test_runs_of_the_living_stay_and_those_of_the_dead_go(store):
    dead = store.root / "runs/dead"
    dead.mkdir()
    (dead / ".part").write_bytes(CONTENT)
    other = Store(store.root)
    assert not dead.exists()
    assert store.run.exists()
    assert store.clean() == {"freed": 0, "in_use": 1}
    store.take(DIGEST, 10, io.BytesIO(CONTENT))
    other.close()
    assert store.clean() == {"freed": len(CONTENT), "in_use": 0}
    assert list(store.root.iterdir()) == []


# A process that Ctrl-C does not end, with a child.
STUBBORN = """
import signal, subprocess, sys
if {ignores}:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print(child.pid, flush=True)
signal.pause()
"""


@pytest.mark.parametrize(("ignores", "status"), [(True, -9), (False, -2)])
def test_what_was_started_ends(monkeypatch, ignores, status):
    monkeypatch.setattr(board_agent, "GRACE", 0.2 if ignores else 60.0)
    command = [sys.executable, "-c", STUBBORN.format(ignores=ignores)]
    with Child(command, stdout=PIPE, stderr=DEVNULL) as runner:
        child = int(runner.stdout.readline())
        board_agent._stop(runner)
        assert runner.wait() == status
    wait_for_end(child)
