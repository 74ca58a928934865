"""The command line from outside: help, exit codes, signals, closed pipes."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.children import PIPE, Child, run_child
from vptkit import __version__
from vptkit.cli import entry
from vptkit.errors import TargetError

COMMANDS = ("check", "eval", "run", "profile", "inspect")


def test_version(vptkit):
    assert vptkit("--version") == (0, __version__ + "\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help(vptkit, command):
    code, out, err = vptkit(command, "--help")
    assert (code, err) == (0, "")
    assert f"vptkit {command}" in out
    assert "--json" in out


def test_the_commands_are_listed(vptkit):
    code, out, _ = vptkit("--help")
    assert code == 0
    assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [("check",), ("nonsense",), ("run", "x", "y", "--top-k", "0"), ("check", "x", "--nonsense")],
)
def test_usage_errors_are_2(vptkit, arguments):
    code, out, err = vptkit(*arguments)
    assert (code, out) == (2, "")
    assert "Error" in err


PROGRAM = (sys.executable, "-c", "from vptkit.cli import main; main()")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_130_and_leaves_what_the_next_run_goes_on_from(
    make_bundle, colour_folders, tmp_path, number
):
    out = tmp_path / "out"
    out.mkdir()
    big = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    Image.fromarray(big).save(tmp_path / "big.png")
    images = tmp_path / "many"
    images.mkdir()
    for i in range(300):
        (images / f"{i:03}.png").symlink_to(tmp_path / "big.png")
    command = [*PROGRAM, "run", make_bundle(), images]
    command += ["--json", "--batch", "1", "--save", out / "x.jsonl", "--backend", "cpu"]
    with Child(command, stdout=PIPE, stderr=PIPE) as process:
        assert json.loads(process.stdout.readline())["top"]  # it is in the middle of its work
        process.send_signal(number)
        _, err = process.communicate()
    assert (process.returncode, err) == (130, "interrupted\n")
    assert [path.name for path in out.iterdir()] == ["x.jsonl.partial"]


def test_a_reader_that_leaves_is_no_traceback(make_bundle, colour_folders):
    read, write = os.pipe()
    os.close(read)
    command = [*PROGRAM, "run", make_bundle(), colour_folders, "--backend", "cpu", "--json"]
    done = run_child(command, stdout=write, check=False)
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""


def test_pillows_warnings_are_not_shown(make_bundle, tmp_path):
    image = Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64) % 4).convert("P")
    image.save(tmp_path / "x.png", transparency=bytes([0, 100, 200]))
    command = [*PROGRAM, "run", make_bundle(), tmp_path / "x.png", "--backend", "cpu", "--json"]
    done = run_child(command, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["top"]


def test_help_is_quick():
    start = time.perf_counter()
    run_child([*PROGRAM, "--help"])
    assert time.perf_counter() - start < 5  # generous: what it loads is tested in test_imports


def test_the_entry_point_is_this(tmp_path: Path):
    done = run_child([Path(sys.executable).with_name("vptkit"), "--version"], cwd=tmp_path)
    assert done.stdout.strip() == __version__


def test_an_error_is_one_line_and_its_code(monkeypatch, capsys):
    """However many lines its message has: whoever reads the last line has all of it."""

    def fail(**_):
        raise TargetError("a.vptk: cannot\n  be\tbuilt")

    monkeypatch.setattr(entry, "app", fail)
    with pytest.raises(SystemExit) as caught:
        entry.main()
    assert caught.value.code == TargetError.exit_code == 4
    assert capsys.readouterr().err == "error: a.vptk: cannot be built\n"


# ---- somebody else's text -----------------------------------------------------------------------

EVIL = "x\x1b]0;owned\x07\u202e\x9b31m"


def obeyed(text):
    """What of a text a terminal would obey."""
    return [c for c in text if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160 or c == "\u202e")]


def test_an_error_shows_what_it_quotes(vptkit, tmp_path):
    code, out, err = vptkit("run", tmp_path / EVIL, "y.png")
    assert (code, out, obeyed(err)) == (2, "", [])
    assert r"x\x1b]0;owned\x07\u202e\x9b31m" in err


@pytest.mark.parametrize(
    "arguments", [(EVIL,), ("run", "a", "b", f"--{EVIL}"), ("run", "a", "b", "--top-k", EVIL)]
)
def test_a_usage_error_shows_what_it_quotes(vptkit, arguments):
    """A shell makes arguments of the names of files, as in `vptkit run bundle *`."""
    code, out, err = vptkit(*arguments)
    assert (code, out, obeyed(err)) == (2, "", [])
    assert "Error" in err


def test_warnings_and_the_log_show_what_they_quote():
    lines = (
        "import logging, warnings",
        "from vptkit.cli import entry",
        f"text = {EVIL!r}",
        "log = logging.getLogger('x')",
        "entry.app = lambda **_: (warnings.warn(text), log.warning('%s', text), None)[2]",
        "entry.main()",
    )
    err = run_child([sys.executable, "-c", "\n".join(lines)], check=False).stderr
    assert err.count("owned") >= 2
    assert obeyed(err) == []


def test_a_label_forges_no_line_of_results(vptkit, make_bundle, colour_folders):
    forged = f"red\n{colour_folders}/red/9.png  red 1.000{EVIL}"
    bundle = make_bundle(labels=(forged, "green", "blue"))
    code, out, _ = vptkit("run", bundle, colour_folders / "red")
    assert (code, len(out.splitlines()), obeyed(out)) == (0, 4, [])
    code, out, _ = vptkit("inspect", bundle)
    assert (code, obeyed(out)) == (0, [])
    assert not any(line.startswith(str(colour_folders)) for line in out.splitlines())


def test_a_file_forges_no_line_of_results(vptkit, make_bundle, colour_folders):
    (colour_folders / "red" / "0.png").rename(colour_folders / "red" / f"a\nb\udcff{EVIL[:2]}.png")
    code, out, err = vptkit("run", make_bundle(), colour_folders / "red", "--backend", "cpu")
    assert (code, len(out.splitlines()), obeyed(out + err)) == (0, 4, [])
    assert r"a\nb\udcffx\x1b.png" in out


def test_a_terminal_that_lacks_a_letter(make_bundle, colour_folders):
    command = [*PROGRAM, "run", make_bundle(labels=("röd", "猫", "blue")), colour_folders / "red"]
    done = run_child(command, env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert r"r\xf6d 0." in done.stdout


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_names_that_are_not_utf8_are_written_everywhere(
    vptkit, make_bundle, colour_folders, suffix
):
    """As \\udcXX in text, in CSV and in JSON: the outputs are UTF-8, and nothing is lost."""
    data, out = colour_folders.with_name("d\udcff"), colour_folders.with_name("out\udcfe")
    colour_folders.rename(data)
    out.mkdir()
    (data / "red" / "0.png").rename(data / "red" / "caf\udce9.png")
    bundle = make_bundle(labels=("blue", "red", "green")).rename(out / "b\udcfd.vptk")
    for command, place, name in (("run", data / "red", "p"), ("eval", data, "m")):
        for more in ([], ["--json"]):
            saved = out / f"{name}{suffix}"
            code, text, err = vptkit(command, bundle, place, "--save", saved, "--force", *more)
            assert code == 0, err
            for written in (text, err, saved.read_text("utf-8")):
                assert "\udcff" not in written
                written.encode()
            assert r"\udc" in text + err
            assert any(r"caf\udce9.png" in line for line in _strict(saved))
    code, text, err = vptkit("inspect", bundle, "--json")
    assert code == 0
    json.dumps(json.loads(text), ensure_ascii=False).encode()


def _strict(path):
    """The paths, or lines, of a file, none of which holds what UTF-8 cannot write."""
    lines = path.read_text("utf-8").splitlines()
    if path.suffix == ".jsonl":
        lines = [json.loads(line)["path"] for line in lines]
    "".join(lines).encode()
    return lines
