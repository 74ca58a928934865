"""The board goes back when the process that changed it dies, and is left alone otherwise."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from pathlib import Path

import pytest

import vptkit
from tests.support.children import PIPE, Child, run_child
from tests.support.fakes.board import make_board, watchdog_of
from vptkit.devices.power.restore_point import RestorePoint
from vptkit.devices.power.watchdog import guarded
from vptkit.devices.probes.jetson import PowerMode
from vptkit.errors import TargetError

# Changes the board, does something, and waits for its death.
CHILD = """
import signal, subprocess, sys
from vptkit.devices.power.restore_point import remember
from vptkit.devices.power.watchdog import guarded
from vptkit.devices.probes.jetson import PowerMode
from vptkit.devices.power.nvpmodel import pin_clocks, set_mode

before = remember(PowerMode(id=1, name="25W"), clocks=True)
with guarded(before):
    set_mode(PowerMode(id=2, name="MAXN_SUPER"))
    pin_clocks()
    {body}
    print("changed", flush=True)
    signal.pause()
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    made = make_board(tmp_path, {1: "25W", 2: "MAXN_SUPER"}, 1)
    monkeypatch.setenv("PATH", f"{made.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return made


@pytest.fixture
def start(fake):
    """A function: starts a process that has changed the board when this returns."""
    children = []

    def run(body="pass"):
        child = Child([sys.executable, "-c", CHILD.format(body=body)], stdout=PIPE, stderr=PIPE)
        children.append(child)
        assert child.stdout.readline() == "changed\n", child.stderr.read()
        assert (fake.mode, fake.clocks) == (2, "pinned in mode 2")
        return child

    yield run
    for child in children:
        with contextlib.suppress(ProcessLookupError):  # its own children too, after a failure
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def last_words(child):
    """What is said until the watchdog has ended: it writes to the same standard error."""
    return child.communicate()[1].splitlines()


def assert_restored(fake):
    assert (fake.mode, fake.clocks) == (1, "as someone left them")
    assert fake.log[-2:] == ["nvpmodel -m 1", "jetson_clocks --restore"]


def assert_ends(handle):
    ready = select.poll()
    ready.register(handle, select.POLLIN)
    try:
        assert ready.poll(60_000)
    finally:
        os.close(handle)


def test_what_kills_a_process_and_its_group_does_not_reach_the_guardian(fake, start, tmp_path):
    """As the agent does over ssh with a runner that does not end."""
    child = start()
    os.killpg(child.pid, signal.SIGKILL)
    assert last_words(child) == [
        "the profile was killed or crashed; power mode 25W (number 1) will be restored",
        "power mode 25W (number 1) restored",
    ]
    assert_restored(fake)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_signals_that_ask_for_an_end_are_ignored(fake, start):
    child = start()
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
        os.kill(watchdog_of(child.pid), number)
    child.kill()
    last_words(child)
    assert_restored(fake)


def test_another_child_that_lives_on_delays_nothing(fake, start):
    """Broken twin: a pipe that children inherit stays open."""
    quiet = "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL"
    child = start(f"subprocess.Popen(['sleep', '600'], close_fds=False, {quiet})")
    child.kill()
    last_words(child)
    assert_restored(fake)
    os.killpg(child.pid, signal.SIGKILL)  # fails if nobody is left


def test_a_folder_that_is_removed_and_standard_error_that_is_gone(
    fake, start, tmp_path, monkeypatch
):
    """As on a board whose desk went away."""
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(Path(vptkit.__file__).parents[1]))
    monkeypatch.chdir(tmp_path / "run")
    child = start()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").rmdir()
    child.stderr.close()
    watchdog = watchdog_of(child.pid)
    assert Path(f"/proc/{watchdog}/cwd").readlink() == Path("/")
    handle = os.pidfd_open(watchdog)
    child.kill()
    child.wait()
    assert_ends(handle)
    assert_restored(fake)


def test_a_tool_that_outlives_its_process_does_not_win(fake):
    """Broken twin: a watchdog that does not wait for it restores first, and is undone."""
    fake.kills(2)
    command = [sys.executable, "-c", CHILD.format(body="pass")]
    done = run_child(command, check=False)
    assert done.returncode == -signal.SIGKILL
    assert fake.log[-3] == "late nvpmodel -m 2"
    assert_restored(fake)


def test_a_board_that_cannot_be_restored_is_said_loudly(fake, start, tmp_path):
    child = start()
    fake.fails(1)
    child.kill()
    words = last_words(child)[-1]
    (file,) = (tmp_path / "temporary").glob("*/clocks.conf")
    assert words.startswith("NOT RESTORED: power mode 25W (number 1). nvpmodel -m 1 did not set")
    assert words.endswith(f"by hand: sudo nvpmodel -m 1 && sudo jetson_clocks --restore {file}")
    assert fake.clocks == "as someone left them"


def test_a_block_that_is_left_has_restored_the_board_itself(fake):
    """Neither the watchdog nor a zombie is left, after an error either."""
    watchdogs = []

    def block(error):
        with guarded(RestorePoint(mode=PowerMode(id=1, name="25W"), clocks=None)):
            watchdogs.append(watchdog_of(os.getpid()))
            if error:
                raise RuntimeError("an error")

    block(error=False)
    with pytest.raises(RuntimeError, match="an error"):
        block(error=True)
    assert [pid for pid in watchdogs if Path(f"/proc/{pid}").exists()] == []
    assert len(watchdogs) == 2
    assert fake.log == []


def test_a_guardian_that_does_not_start(fake, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    before = RestorePoint(mode=PowerMode(id=1, name="25W"), clocks=None)
    with pytest.raises(TargetError, match=r"did not start.*Nothing was changed"), guarded(before):
        raise AssertionError("the block began")


def test_it_loads_little():
    """So that it starts fast, and where numpy is not."""
    code = "import sys, vptkit.devices.power.watchdog\nprint(*sys.modules)"
    names = run_child([sys.executable, "-c", code])
    loaded = {name.partition(".")[0] for name in names.stdout.split()}
    assert "vptkit" in loaded
    assert loaded & {"numpy", "tomli", "tomllib"} == set()
