"""Power modes: whatever happens, the board ends as it began."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest

from tests.support.children import PIPE, Child, run_child
from tests.support.device_trees import plant
from tests.support.fakes.board import STEADY, make_board, watchdog_of
from vptkit.devices.power.operating_state import read_operating_state
from vptkit.devices.probes.jetson import PowerMode
from vptkit.errors import MissingError, TargetError, VptkitError
from vptkit.runtime.profile.power_mode_sweep import BoardAccess, pinned, sweep_power_modes
from vptkit.runtime.profile.run_profile import profile_bundles
from vptkit.runtime.profile.settings import ProfileSettings

MODES = {0: "15W", 1: "25W", 2: "MAXN_SUPER", 3: "7W"}
ALL = tuple(PowerMode(id=number, name=name) for number, name in MODES.items())
# subprocess.run leaves a child that it killed to the system if Ctrl-C came and the machine is slow.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A fake board on PATH, in mode 1; we are root."""
    made = make_board(tmp_path, MODES, 1)
    monkeypatch.setenv("PATH", f"{made.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return made


@pytest.fixture
def said():
    return []


@pytest.fixture
def board(tmp_path, said):
    return BoardAccess(root=tmp_path, sleep=lambda _: None, announce=said.append)


def measure(*, memory=True):
    """A profile of one row that tells whether memory was asked for."""
    states = {"before": STEADY, "after": STEADY, "throttled": [], "changed": []}
    return {"format": "f", "rows": [{"name": "a", "memory": memory}], "state": states}


def assert_restored(fake):
    assert fake.mode == 1
    assert fake.clocks == "as someone left them"
    changes = [line for line in fake.log if line != "jetson_clocks --store"]
    assert changes[-2:] == ["nvpmodel -m 1", "jetson_clocks --restore"]


def test_every_mode_has_its_rows(fake, board, said):
    document = sweep_power_modes(ALL, measure, board=board)
    assert [row["power_mode"] for row in document["rows"]] == list(MODES.values())
    assert [row["memory"] for row in document["rows"]] == [True, False, False, False]
    swept = document["sweep"]
    assert swept["first"] == {"id": 1, "name": "25W"}
    assert [(m["id"], m["name"], m["settled"]) for m in swept["modes"]] == [
        (number, name, True) for number, name in MODES.items()
    ]
    assert swept["skipped"] == []
    assert [line for line in fake.log if line.startswith("nvpmodel")] == [
        f"nvpmodel -m {i}" for i in (0, 1, 2, 3, 1)
    ]
    assert_restored(fake)
    assert "sudo nvpmodel -m 1" in said[0]  # said before anything is changed
    assert said[-1] == "power mode 25W (number 1) restored"


def test_clocks_are_pinned_in_each_mode(fake, board):
    seen = []

    def look(*, memory=True):
        seen.append(fake.clocks)
        return measure()

    sweep_power_modes(ALL[:2], look, pin=True, board=board)
    assert seen == ["pinned in mode 0", "pinned in mode 1"]
    assert_restored(fake)


def test_modes_that_need_a_reboot_are_skipped(fake, board, said):
    fake.needs_reboot(0)
    fake.needs_reboot(3)
    document = sweep_power_modes(ALL, measure, board=board)
    assert [row["power_mode"] for row in document["rows"]] == ["25W", "MAXN_SUPER"]
    assert [(s["name"], s["reason"]) for s in document["sweep"]["skipped"]] == [
        ("15W", "power mode 15W (number 0) needs a reboot"),
        ("7W", "power mode 7W (number 3) needs a reboot"),
    ]
    assert "skipped: power mode 7W (number 3) needs a reboot" in said
    assert "reboot" not in fake.log
    assert_restored(fake)


def test_no_mode_can_be_entered(fake, board):
    fake.needs_reboot(0)
    with pytest.raises(TargetError, match=r"no power mode could be entered: .*15W"):
        sweep_power_modes(ALL[:1], measure, board=board)
    assert_restored(fake)


def test_an_error_in_the_midst(fake, board):
    def fail(*, memory=True):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        sweep_power_modes(ALL, fail, board=board)
    assert fake.log[:2] == ["jetson_clocks --store", "nvpmodel -m 0"]
    assert_restored(fake)


def test_a_mode_that_is_refused_ends_the_sweep(fake, board):
    fake.fails(2)
    with pytest.raises(TargetError, match="did not set power mode MAXN_SUPER"):
        sweep_power_modes(ALL, measure, board=board)
    assert_restored(fake)


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_in_the_midst_of_a_measurement(fake, board, number):
    before = signal.getsignal(number)

    def interrupted(*, memory=True):
        os.kill(os.getpid(), number)
        raise AssertionError("the signal was swallowed")

    with pytest.raises(KeyboardInterrupt):
        sweep_power_modes(ALL, interrupted, board=board)
    assert_restored(fake)
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_so(fake, board):
    """As under nohup, when the connection to the board breaks."""

    def hang_up(*, memory=True):
        os.kill(os.getpid(), signal.SIGHUP)
        return measure()

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert len(sweep_power_modes(ALL, hang_up, board=board)["rows"]) == 4
    finally:
        signal.signal(signal.SIGHUP, before)
    assert_restored(fake)


def test_an_interrupt_while_a_mode_is_being_set(fake, board):
    fake.interrupts(2)
    with pytest.raises(KeyboardInterrupt):
        sweep_power_modes(ALL, measure, board=board)
    assert_restored(fake)


def test_an_interrupt_while_the_first_mode_is_being_restored(fake, board, said):
    fake.interrupts(1)
    with pytest.raises(KeyboardInterrupt):
        sweep_power_modes(ALL[2:3], measure, board=board)
    assert_restored(fake)
    assert said[-1] == "power mode 25W (number 1) restored"


def test_further_interrupts_do_not_keep_the_board_from_its_mode(fake, board):
    """Broken twin: a handler that raises every time leaves the board in mode 2."""
    fake.interrupts(1)

    def interrupted(*, memory=True):
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the signal was swallowed")

    with pytest.raises(KeyboardInterrupt):
        sweep_power_modes(ALL[2:3], interrupted, board=board)
    assert_restored(fake)


def test_a_terminal_that_is_gone_stops_nothing(fake, tmp_path):
    def announce(text):
        raise BrokenPipeError

    board = BoardAccess(root=tmp_path, sleep=lambda _: None, announce=announce)
    sweep_power_modes(ALL[:1], measure, board=board)
    assert_restored(fake)


def test_a_board_that_cannot_be_restored_is_said_loudly(fake, board, said):
    def then_break(*, memory=True):
        fake.fails(1)
        return measure()

    with pytest.raises(TargetError, match=r"NOT RESTORED.*by hand: sudo nvpmodel -m 1") as caught:
        sweep_power_modes(ALL[:1], then_break, pin=True, board=board)
    assert fake.clocks == "as someone left them"  # what can go back does
    assert any("NOT RESTORED: power mode 25W" in text for text in said)
    # What goes back by hand is still there.
    file = Path(str(caught.value).split("jetson_clocks --restore ")[1])
    assert file.read_text() == "as someone left them\n"
    shutil.rmtree(file.parent)


def test_the_command_that_goes_back_is_announced_with_its_file(fake, board, said):
    files = []

    def look(*, memory=True):
        files.append(Path(said[0].split("jetson_clocks --restore ")[1]))
        assert files[0].read_text() == "as someone left them\n"
        return measure()

    sweep_power_modes(ALL[:1], look, board=board)
    assert not files[0].parent.exists()


def test_clocks_that_are_not_all_restored_are_said(fake, board, said):
    """jetson_clocks ends with 0 whatever it could not write."""
    fake.half_fails()
    sweep_power_modes(ALL[:1], measure, pin=True, board=board)
    complaint = "Error: Failed to max or restore the GPU"
    assert said[1] == f"jetson_clocks: {complaint}"
    assert said[-1] == f"power mode 25W (number 1) restored; but {complaint}"


def test_only_root_may(fake, board, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MissingError, match="--power needs root"):
        sweep_power_modes(ALL, measure, board=board)
    with pytest.raises(MissingError, match="--pin-clocks needs root"), pinned(board):
        pass
    assert fake.log == []


def test_clocks_are_pinned_for_a_block(fake, board, said):
    def block():
        with pinned(board):
            assert fake.clocks == "pinned in mode 1"
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert fake.clocks == "as someone left them"
    assert [line for line in fake.log if line.startswith("nvpmodel")] == []
    assert said[-1] == "clocks restored"


def test_limits_that_never_settle(fake, tmp_path, said):
    """The clocks' limits move with every look; the sweep goes on and says so."""
    file = tmp_path / "sys/class/devfreq/gpu/max_freq"
    file.parent.mkdir(parents=True)
    file.write_text("1000000")
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        file.write_text(f"{len(waits) + 1}000000")

    board = BoardAccess(root=tmp_path, sleep=sleep, announce=said.append)
    document = sweep_power_modes(ALL[:1], measure, board=board)
    assert document["sweep"]["modes"][0]["settled"] is False
    assert sum(waits) == pytest.approx(2 * 10.0)  # in the mode, and back in the first one


def test_limits_that_are_not_as_before_are_said(fake, tmp_path, said):
    """jetson_clocks stores no upper limit, so nobody puts back one that a user had set."""
    file = tmp_path / "sys/class/devfreq/gpu/max_freq"
    file.parent.mkdir(parents=True)
    file.write_text("612000000")

    def look(*, memory=True):
        file.write_text("1020000000")
        return measure()

    board = BoardAccess(root=tmp_path, sleep=lambda _: None, announce=said.append)
    sweep_power_modes(ALL[:1], look, board=board)
    assert said[-1].endswith(" restored; but gpu may take ? to 1020 MHz, before ? to 612 MHz")


DYING = """
import ctypes, os, resource, signal, sys
from pathlib import Path
os.geteuid = lambda: 0
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from vptkit.devices.probes.jetson import PowerMode
from vptkit.runtime.profile.power_mode_sweep import BoardAccess, sweep_power_modes

def die(*, memory=True):
    {death}

board = BoardAccess(root=Path(sys.argv[1]), sleep=lambda _: None)
sweep_power_modes([PowerMode(id=2, name="MAXN_SUPER")], die, pin=True, board=board)
"""


@pytest.mark.parametrize(
    ("death", "number"),
    [
        ("ctypes.string_at(0)", signal.SIGSEGV),
        ("os.abort()", signal.SIGABRT),
        ("os.kill(os.getpid(), signal.SIGQUIT)", signal.SIGQUIT),
        ("os.kill(os.getpid(), signal.SIGKILL)", signal.SIGKILL),
        ("os._exit(0)", 0),
    ],
)
def test_a_crash_in_the_midst_of_a_measurement(fake, tmp_path, death, number):
    """Standard error ends when both processes have ended."""
    command = [sys.executable, "-c", DYING.format(death=death), str(tmp_path)]
    done = run_child(command, check=False)
    assert done.returncode == -number
    assert fake.log[1:3] == ["nvpmodel -m 2", "jetson_clocks "]
    assert_restored(fake)
    assert done.stderr.splitlines()[-1] == "power mode 25W (number 1) restored"


def test_a_sweep_leaves_no_process_behind(fake, board):
    """The watchdog lives as long as the measurement, and is no zombie after it."""
    watchdogs = []

    def look(*, memory=True):
        watchdogs.append(watchdog_of(os.getpid()))
        return measure()

    sweep_power_modes(ALL, look, board=board)
    assert len(set(watchdogs)) == 1
    assert not Path(f"/proc/{watchdogs[0]}").exists()
    assert fake.log[-2:] == ["nvpmodel -m 1", "jetson_clocks --restore"]
    assert fake.log.count("nvpmodel -m 1") == 2  # as one of the modes, and at the end


def test_without_a_guardian_nothing_is_changed(fake, board, said, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with pytest.raises(TargetError, match=r"did not start.*Nothing was changed"):
        sweep_power_modes(ALL, measure, board=board)
    assert fake.log == ["jetson_clocks --store"]
    assert said == []
    assert list((tmp_path / "temporary").iterdir()) == []


# ---- settings and the command line ---------------------------------------------------------------


def test_settings_are_json():
    settings = ProfileSettings(batches=(1, 8), power="all", energy=2.0)
    document = json.loads(json.dumps(settings.to_json()))
    assert ProfileSettings.from_json(document) == settings
    assert ProfileSettings.from_json({}) == ProfileSettings()
    with pytest.raises(VptkitError, match="'batch' is not known"):
        ProfileSettings.from_json({"batch": 1})


def test_bundles_are_profiled_in_each_mode(fake, tmp_path, make_bundle, said, monkeypatch):
    root = plant("orin-nano-jp62", tmp_path / "root")
    # Not the state of the machine that runs the tests: it may throttle.
    monkeypatch.setattr(
        "vptkit.runtime.measure.telemetry.read_operating_state", partial(read_operating_state, root)
    )
    board = BoardAccess(root=root, sleep=lambda _: None, announce=said.append)
    settings = ProfileSettings(power="15W,MAXN_SUPER", rounds=3, threads=1, memory=False)
    document = profile_bundles([make_bundle("a"), make_bundle("b")], settings, board=board)
    assert [(row["power_mode"], row["name"]) for row in document["rows"]] == [
        (mode, name) for mode in ("15W", "MAXN_SUPER") for name in ("a-0", "b-1")
    ]
    # The state is read in the mode itself.
    modes = document["sweep"]["modes"]
    assert [m["state"]["after"]["power_mode"]["name"] for m in modes] == ["15W", "MAXN_SUPER"]
    assert document["state"]["changed"] == ["power mode: 15W, then MAXN_SUPER"]
    assert all(row["unsteady"] == [] for row in document["rows"])
    json.dumps(document, allow_nan=False)
    assert_restored(fake)


CHILD = """
import os, sys
from pathlib import Path
os.geteuid = lambda: 0
from vptkit.runtime.profile.power_mode_sweep import BoardAccess
BoardAccess.__init__.__kwdefaults__["root"] = Path(sys.argv.pop(1))
from vptkit.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_the_command_line_restores_the_board(fake, tmp_path, make_bundle, number):
    """A real signal in the midst of a measurement that is longer than any test."""
    root = plant("orin-nano-jp62", tmp_path / "root")
    command = [sys.executable, "-c", CHILD, str(root), "profile", str(make_bundle())]
    command += ["--power", "MAXN_SUPER", "--seconds", "600", "--threads", "1", "--json"]
    with Child(command, stdout=PIPE, stderr=PIPE, bufsize=1) as child:
        lines = []
        for line in child.stderr:
            lines.append(line)
            if "1 of 1" in line:
                child.send_signal(number)
        out = child.stdout.read()
    assert child.returncode == 130
    assert out == ""
    assert "nvpmodel -m 2" in fake.log
    assert_restored(fake)
    assert "power mode 25W (number 1) restored\n" in lines
    assert not any("Traceback" in line for line in lines)
