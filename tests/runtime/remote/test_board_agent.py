"""The board's side: its cache, and how it ends what it started."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys

import pytest

from tests.support.children import DEVNULL, PIPE, Child, run_child
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


@pytest.mark.parametrize("digest", ["../../victim", "", ".", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_what_is_no_digest_is_no_file(store, digest):
    """One of another folder was removed, for its content is not the one of its name."""
    victim = store.root.parent / "victim"
    victim.write_bytes(CONTENT)
    with pytest.raises(ValueError, match="is no SHA-256"):
        store.missing({digest: 1})
    with pytest.raises(ValueError, match="is no SHA-256"):
        store.take(digest, 10, io.BytesIO(CONTENT))
    with pytest.raises(ValueError, match="is no SHA-256"):
        store.lay_out({"a": digest})
    assert victim.read_bytes() == CONTENT


def test_a_file_that_is_a_link_or_none_is_missing(store, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    (store.root / "files" / DIGEST).symlink_to(tmp_path / "file")
    assert store.missing({DIGEST: 10}) == [DIGEST]
    os.mkfifo(store.root / "files" / DIGEST)
    assert store.missing({DIGEST: 10}) == [DIGEST]
    assert (tmp_path / "file").exists()


@pytest.mark.parametrize("path", ["", "/a", "../a", "a/../../b", "a\nb", "a\0b"])
def test_names_that_lead_elsewhere(store, path):
    store.take(DIGEST, 10, io.BytesIO(CONTENT))
    with pytest.raises(ValueError, match="leads out of its folder"):
        store.lay_out({path: DIGEST})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_cache_of_another_user_is_not_used(tmp_path):
    (tmp_path / "cache").mkdir()
    os.chown(tmp_path / "cache", 12345, 12345)
    with pytest.raises(ValueError, match="belongs to another user"):
        Store(tmp_path / "cache")


def test_a_cache_that_others_may_write_is_mended(tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    Store(tmp_path / "cache").close()
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


ORDERS = (
    *("[]", "1", "nonsense", '{"a": ' * 100_000, '{"other": 1}', '{"take": {}, "run": {}}'),
    *('{"take": []}', '{"take": {"a": 1}}', '{"take": {"a": [1, 2]}}', '{"take": {"a": ["x", 1]}}'),
    *(f'{{"take": {{"a": ["{DIGEST}", {size}]}}}}' for size in ("-1", "1.5", "true", "9" * 30)),
    f'{{"take": {{"a": ["{DIGEST}", {1 << 40}]}}}}',  # more than any disk of a test has free
    f'{{"take": {{"a": ["{DIGEST}", 1], "b": ["{DIGEST}", 2]}}}}',
)


@pytest.mark.parametrize("order", ORDERS, ids=range(len(ORDERS)))
def test_what_is_no_order(tmp_path, order):
    command = [sys.executable, board_agent.__file__]
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = run_child(command, input=order + "\n", env=environment, check=False)
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["error"]["code"] == 2
    assert (done.returncode, done.stderr) == (1, "")


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
