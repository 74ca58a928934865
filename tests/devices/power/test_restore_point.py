"""What a board goes back to, and what is said if it does not."""

from __future__ import annotations

import os
import tempfile

import pytest

from tests.support.fakes.board import make_board
from vptkit.devices.power.nvpmodel import Output, pin_clocks, run_command
from vptkit.devices.power.restore_point import RestorePoint, remember
from vptkit.devices.probes.jetson import PowerMode
from vptkit.errors import TargetError

FIRST = PowerMode(id=1, name="25W")


@pytest.fixture
def fake(tmp_path, monkeypatch):
    made = make_board(tmp_path, {1: "25W", 2: "MAXN_SUPER"}, 1)
    monkeypatch.setenv("PATH", f"{made.bin}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return made


def test_another_process_reads_it(fake):
    before = remember(FIRST, clocks=True)
    assert before.clocks.read_text() == "as someone left them\n"
    for state in (
        before,
        RestorePoint(mode=None, clocks=before.clocks),
        RestorePoint(mode=FIRST, clocks=None),
    ):
        assert RestorePoint.from_json(state.to_json()) == state
    before.forget()
    assert list(before.clocks.parent.parent.iterdir()) == []


def test_clocks_that_cannot_be_stored_leave_nothing(fake, tmp_path):
    def run(command):
        return Output(code=1, text="no")

    with pytest.raises(TargetError, match=r"--store .* ended with 1: no"):
        remember(FIRST, clocks=True, run=run)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_clocks_go_back_even_if_the_mode_does_not(fake):
    before = remember(FIRST, clocks=True)
    pin_clocks()
    run_command(["nvpmodel", "-m", "2"])
    fake.fails(1)
    with pytest.raises(TargetError, match=r"NOT RESTORED.*by hand: sudo nvpmodel -m 1 && sudo jet"):
        before.restore()
    assert (fake.mode, fake.clocks) == (2, "as someone left them")


def test_clocks_go_back_if_there_is_no_memory_to_ask_for_the_mode(fake):
    def run(command):
        if command[0] == "nvpmodel":
            raise OSError("Cannot allocate memory")
        return run_command(command)

    before = remember(FIRST, clocks=True)
    pin_clocks()
    with pytest.raises(TargetError, match="allocate memory"):
        before.restore(run)
    assert fake.clocks == "as someone left them"


def test_all_that_failed_is_said(fake):
    def run(command):
        if command[0] == "jetson_clocks":
            return Output(code=1, text="no file")
        return Output(code=255, text="NV Power Mode: MAXN_SUPER\n2\n")

    before = remember(FIRST, clocks=True)
    with pytest.raises(TargetError) as caught:
        before.restore(run)
    assert "did not set power mode 25W, the board is in MAXN_SUPER" in str(caught.value)
    assert "ended with 1: no file" in str(caught.value)
