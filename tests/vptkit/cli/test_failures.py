"""What an exception is called, its exit code, and `--traceback`."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from tests.support.children import run_child
from vptkit.cli import entry, failures
from vptkit.errors import GateError


class OutOfMemoryError(RuntimeError):
    """As torch.cuda's."""


@pytest.mark.parametrize(
    ("error", "code", "parts"),
    [
        (GateError("no"), 3, ["error: no"]),
        (
            ValueError("x\n  is 3"),
            1,
            ["unexpected ValueError: x is 3.", "--traceback", "doctor --json"],
        ),
        (KeyError("a"), 1, ["unexpected KeyError: 'a'."]),
        (AssertionError(), 1, ["unexpected AssertionError: (no message)."]),
        (RecursionError("deep"), 1, ["unexpected RecursionError: deep."]),
        (
            PermissionError(errno.EACCES, "Permission denied", "/a/b"),
            2,
            ["error: /a/b: Permission denied."],
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "/r/x"),
            2,
            ["/r/x: Read-only", "be written."],
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            2,
            ["the system refused: No space", "Free"],
        ),
        (
            OSError(errno.EMFILE, "Too many open files", "x"),
            2,
            ["x: Too many open files. ", "ulimit -n"],
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "a", None, "b"),
            2,
            ["error: a → b: No such"],
        ),
        (OSError("what a library says"), 1, ["unexpected OSError: what a library says."]),
        (MemoryError(), 2, ["error: out of memory. ", "--batch", "--recompute"]),
        (
            MemoryError("Unable to allocate 9 GiB"),
            2,
            ["out of memory (Unable to allocate 9 GiB). "],
        ),
        (OutOfMemoryError("CUDA"), 2, ["out of memory (CUDA). "]),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, ["out of memory (Default"]),
        (
            ImportError("libcudart.so: cannot open", name="torch"),
            5,
            ["torch cannot be imported: lib"],
        ),
        (ImportError("no name x", name="vptkit.y"), 1, ["unexpected ImportError"]),
        (ValueError("x\x1b]0;y\x07"), 1, [r"unexpected ValueError: x\x1b]0;y\x07."]),
    ],
)
def test_one_line_and_its_code(monkeypatch, vptkit, error, code, parts):
    def fail(**_):
        raise error

    monkeypatch.setattr(entry, "app", fail)
    found, out, err = vptkit("run")
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert err.startswith("error: ")
    for part in parts:
        assert part in err


@pytest.mark.parametrize(
    ("line", "environment"),
    [
        (["--traceback", "run", "a", "b"], ""),
        (["run", "a", "b", "--traceback"], ""),
        (["run", "a", "b"], "1"),
    ],
)
def test_a_traceback_where_it_is_wanted(monkeypatch, vptkit, line, environment):
    monkeypatch.setenv("VPTKIT_TRACEBACK", environment)
    code, out, err = vptkit(*line)
    assert (code, out) == (2, "")
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.splitlines()[-1].startswith("error: a:")
    code, _, err = vptkit("run", "a", "b") if not environment else (2, "", "")
    assert (code, "Traceback" in err) == (2, False)


def test_a_file_may_have_that_name(monkeypatch):
    monkeypatch.delenv("VPTKIT_TRACEBACK", raising=False)
    words = ["run", "a", "--", "--traceback"]
    assert failures.without_traceback_option(words) == (words, False)
    assert failures.without_traceback_option(["--traceback", *words]) == (words, True)
    monkeypatch.setenv("VPTKIT_TRACEBACK", "0")
    assert failures.without_traceback_option(["run"]) == (["run"], False)


def test_it_is_on_no_page(vptkit):
    assert "traceback" not in vptkit("--help")[1] + vptkit("run", "--help")[1]


FULL = Path("/dev/full")
MAIN = [sys.executable, "-c", "from vptkit.cli import main; main()"]


@pytest.mark.slow
@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
def test_a_full_disk_under_standard_output():
    with FULL.open("w") as full:
        done = run_child([*MAIN, "devices", "list"], stdout=full, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "error: the system refused: No space left on device. Free some space, or choose another place.\n"
    )


@pytest.mark.slow
def test_a_reader_that_leaves_a_short_text_is_quiet():
    read, write = os.pipe()
    os.close(read)
    done = run_child([*MAIN, "--help"], stdout=write, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")
