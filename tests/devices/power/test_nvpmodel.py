from __future__ import annotations

import os

import pytest

from tests.support.device_trees import plant
from tests.support.fakes.board import make_board
from vptkit.devices.power.nvpmodel import (
    Output,
    RebootNeededError,
    choose_modes,
    current_mode,
    has_nvpmodel,
    parse_query,
    pin_clocks,
    require_root,
    restore_clocks,
    run_command,
    set_mode,
    show_clocks,
    store_clocks,
)
from vptkit.devices.probes.jetson import PowerMode
from vptkit.errors import MissingError, TargetError, VptkitError

MODES = {0: "15W", 1: "25W", 2: "MAXN_SUPER"}


@pytest.fixture
def board(tmp_path, monkeypatch):
    """A fake one on PATH, in mode 1; we are root."""
    made = make_board(tmp_path, MODES, 1)
    monkeypatch.setenv("PATH", f"{made.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return made


def mode(number: int) -> PowerMode:
    return PowerMode(id=number, name=MODES[number])


@pytest.mark.parametrize(
    ("text", "name", "number"),
    [
        ("NV Power Mode: MAXN\n0\n", "MAXN", 0),
        (
            "NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_30W_2CORE\n2\n",
            "MODE_30W_2CORE",
            2,
        ),
        (
            "NVPM VERB: Current mode: NV Power Mode: 40W\n4\nNVPM VERB: PARAM CPU_ONLINE: ARG 1\n",
            "40W",
            4,
        ),
    ],
)
def test_the_answer_of_nvpmodel(text, name, number):
    assert parse_query(text) == PowerMode(id=number, name=name)


@pytest.mark.parametrize("text", ["", "NVPM ERROR: no\n", "NV Power Mode: MAXN\n", "1\n"])
def test_an_answer_without_a_mode(text):
    assert parse_query(text) is None
    with pytest.raises(TargetError, match="names no power mode"):
        current_mode(lambda _: Output(code=0, text=text))


def test_modes_are_named_as_the_board_names_them(tmp_path):
    root = plant("orin-nano-jp62", tmp_path)
    everything = choose_modes("all", root)
    assert [m.name for m in everything][:3] == ["15W", "25W", "MAXN_SUPER"]
    assert [m.id for m in choose_modes("maxn super, 15W,15W", root)] == [2, 0]
    for wrong in ("60W", "0", ""):
        with pytest.raises(VptkitError, match="expected all, or some of 15W, 25W, MAXN_SUPER"):
            choose_modes(wrong, root)


def test_modes_are_a_jetsons(tmp_path):
    with pytest.raises(MissingError, match=r"nvpmodel\.conf"):
        choose_modes("all", tmp_path)


def test_a_mode_is_set_and_asked_for(board):
    assert current_mode() == mode(1)
    set_mode(mode(2))
    assert (current_mode(), board.mode) == (mode(2), 2)


@pytest.fixture
def yes():
    """Standard input, down to the file descriptor, says yes to whoever asks."""
    (source, sink), saved = os.pipe(), os.dup(0)
    os.write(sink, b"yes\n")
    os.dup2(source, 0)
    yield
    os.dup2(saved, 0)
    for number in (source, sink, saved):
        os.close(number)


def test_a_mode_that_needs_a_reboot_is_not_set(board, yes):
    """Broken twin: a command that inherits standard input reboots the board."""
    board.needs_reboot(0)
    with pytest.raises(RebootNeededError, match=r"15W \(number 0\) needs a reboot"):
        set_mode(mode(0))
    assert board.mode == 1
    assert "reboot" not in board.log


def test_a_mode_that_is_refused(board):
    board.fails(2)
    with pytest.raises(
        TargetError, match="the board is in 25W: NVPM ERROR: Error opening"
    ) as error:
        set_mode(mode(2))
    assert not isinstance(error.value, RebootNeededError)


def test_clocks_are_stored_pinned_and_restored(board, tmp_path):
    file = tmp_path / "clocks.conf"
    store_clocks(file)
    pin_clocks()
    assert board.clocks == "pinned in mode 1"
    assert show_clocks() == ["pinned in mode 1"]
    restore_clocks(file)
    assert board.clocks == "as someone left them"
    with pytest.raises(TargetError, match=r"--store .* ended with 1"):
        store_clocks(file)


def test_clocks_are_shown_to_root_only(board, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert show_clocks() is None


def test_root_is_asked_for(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MissingError, match=r"--power needs root.*sudo"):
        require_root("--power")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    require_root("--power")


def test_a_command_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("vptkit.devices.power.nvpmodel._find", lambda _: None)
    assert not has_nvpmodel()
    with pytest.raises(MissingError, match="nvpmodel is not there"):
        current_mode()


def test_a_command_that_never_ends(tmp_path, monkeypatch):
    script = tmp_path / "nvpmodel"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr("vptkit.devices.power.nvpmodel._find", lambda _: str(script))
    monkeypatch.setattr("vptkit.devices.power.nvpmodel._SECONDS", 0.1)
    with pytest.raises(TargetError, match=r"did not end in 0 s"):
        run_command(["nvpmodel", "-q"])
