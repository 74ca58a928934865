"""Signals: during start, imports and work; lost ones; those of a launcher that ignores them."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.support.children import PIPE, Child
from vptkit.cli import interrupts

HEAD = """
import os, sys, time
from vptkit.cli import interrupts
interrupts._RAISED = 0.1
interrupts.listen()
def say(word):
    os.write(1, f"{word}\\n".encode())
"""
TAIL = """
try:
    interrupts.run(command)
except KeyboardInterrupt:
    say("interrupted")
say("end")
"""


def told(body, *, times=1, number=signal.SIGINT, folder=None, tail=TAIL):
    """Exit status and words of a child that gets a signal as soon as it has said "ready"."""
    command = [sys.executable, "-c", HEAD + body + tail]
    with Child(command, stdout=PIPE, stderr=PIPE, cwd=folder, limit=60) as child:
        assert child.stdout.readline() == "ready\n"
        for _ in range(times):
            child.send_signal(number)
            time.sleep(0.05)
        out, err = child.communicate()
    return child.returncode, out.split(), err


SLEEP = """
def command():
    say("ready")
    time.sleep(60)
"""
LOST = """
def command():
    try:
        say("ready")
        time.sleep(60)
    except:
        say("lost")
    for _ in range(600):
        time.sleep(0.1)
"""
IN_DESTRUCTOR = """
class Held:
    def __del__(self):
        say("ready")
        time.sleep(60)
def command():
    Held()
    for _ in range(600):
        time.sleep(0.1)
"""
CLEANS = """
def command():
    try:
        say("ready")
        time.sleep(60)
    finally:
        for _ in range(6):
            time.sleep(0.05)
        say("clean")
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (SLEEP, ["interrupted", "end"]),
        (LOST, ["lost", "interrupted", "end"]),
        (CLEANS, ["clean", "interrupted", "end"]),
        (IN_DESTRUCTOR, ["interrupted", "end"]),
    ],
    ids=["at work", "lost in an except", "while things are put in order", "lost in a destructor"],
)
def test_a_signal_reaches_the_end(body, words, number):
    assert told(body, number=number) == (0, words, "")


IMPORTS = "def command():\n    import slow_library\n    say('not reached')\n    time.sleep(60)\n"
LIBRARY = """
import os, time
os.write(1, b"ready\\n")
try:
    for _ in range(8):
        time.sleep(0.05)
except:  # what libraries do where they try what there is
    os.write(1, b"swallowed\\n")
os.write(1, b"imported\\n")
"""


@pytest.mark.slow
def test_an_import_is_finished_first(tmp_path):
    (tmp_path / "slow_library.py").write_text(LIBRARY)
    code, words, err = told(f"sys.path.insert(0, {str(tmp_path)!r})\n{IMPORTS}")
    assert (code, words[0], words[-2:], err) == (0, "imported", ["interrupted", "end"], "")
    assert "swallowed" not in words


@pytest.mark.slow
def test_who_insists_is_not_kept_waiting_by_an_import(tmp_path):
    (tmp_path / "slow_library.py").write_text(LIBRARY.replace("range(8)", "range(2000)"))
    code, words, err = told(f"sys.path.insert(0, {str(tmp_path)!r})\n{IMPORTS}", times=3)
    assert (code, words, err) == (130, [], "interrupted\n")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_and_after_a_command_the_process_ends_at_once(number):
    body = "command = lambda: None\n"
    waits = TAIL + "say('ready')\ntime.sleep(60)\n"
    first = told(body, number=number, tail="say('ready')\ntime.sleep(60)\n")
    assert first == (130, [], "interrupted\n")
    command = [sys.executable, "-c", HEAD + body + waits]
    with Child(command, stdout=PIPE, stderr=PIPE, limit=60) as child:
        assert [child.stdout.readline() for _ in range(2)] == ["end\n", "ready\n"]
        child.send_signal(number)
        assert (child.communicate()[1], child.returncode) == ("interrupted\n", 130)


def test_who_was_started_with_signals_ignored_ignores_them(monkeypatch):
    monkeypatch.setattr(interrupts, "_SIGNALS", (signal.SIGUSR1, signal.SIGUSR2))
    before = {number: signal.getsignal(number) for number in interrupts._SIGNALS}
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with interrupts.heard():
            assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGUSR2) is not before[signal.SIGUSR2]
        assert signal.getsignal(signal.SIGUSR2) is before[signal.SIGUSR2]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_command_leaves_the_callers_signals_alone(vptkit):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    assert vptkit("--version")[0] == 0
    assert [signal.getsignal(number) for number in numbers] == before
    assert sys.unraisablehook is not interrupts._unraisable
    assert not interrupts.asked()


# ---- the command line itself --------------------------------------------------------------------


def listens(pid):
    """Whether a process catches SIGTERM, which Python by itself does not."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def killed(command, number, delay):
    """Exit status, standard output and error, killed so long after it began to listen."""
    with Child(command, stdout=PIPE, stderr=PIPE, limit=120) as child:
        while child.poll() is None and not listens(child.pid):
            time.sleep(0.001)
        time.sleep(delay)
        child.send_signal(number)
        out, err = child.communicate()
    return child.returncode, out, err


@pytest.mark.slow
def test_it_listens_before_it_loads_anything(tmp_path):
    """Also as `python -m`, and whatever lies in the current folder."""
    for name in ("pathlib", "signal", "typer"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not ours to import')")
    command = [sys.executable, "-m", "vptkit", "--help"]
    with Child(command, stdout=PIPE, stderr=PIPE, cwd=tmp_path) as child:
        while child.poll() is None and not listens(child.pid):
            time.sleep(0.0005)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate()
    assert (child.returncode, out, err) == (130, "", "interrupted\n")


COMMANDS = {
    "tune": ("tune", "/nowhere", "-o", "/tmp/x.safetensors", "--backbone", "vit"),  # imports torch
    "doctor": ("doctor",),  # starts other processes
    "script": ("--version",),
}


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_at_any_time(name):
    """130 and one word, or as if nothing had been: never a traceback, never a signal that is lost.

    Both signals in turns. Before that word stands at most what the command says by itself. When all is written, Python
    takes its handlers away and ends: then the signal is the status.
    """
    program = [sys.executable, "-m", "vptkit"]
    if name == "script":
        program = [Path(sys.executable).with_name("vptkit")]
        if not program[0].exists():
            pytest.skip("vptkit is not installed in this environment")
    command = [*program, *COMMANDS[name]]
    start = time.monotonic()
    with Child(command, stdout=PIPE, stderr=PIPE) as child:
        plain = child.communicate()
    whole, usual = time.monotonic() - start, child.returncode
    steps = 4 if name == "tune" else 8  # importing torch takes its time
    for i in range(steps):
        number = (signal.SIGINT, signal.SIGTERM)[i % 2]
        code, out, err = killed(command, number, whole * i / steps)
        if code == 130:
            said, word, after = err.rpartition("interrupted\n")
            assert (word, after) == ("interrupted\n", "")
            assert plain[1].startswith(said)
        else:
            assert code in (usual, -number)
            assert (len(out), err) == (len(plain[0]), plain[1])
