"""The runner on the board's side: what it writes, and where."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest

from tests.support.children import run_child
from vptkit.runtime.remote.profile_runner import Reporter


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def said(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_progress_is_written_now_and_then():
    stream, clock = io.StringIO(), Clock()
    reporter = Reporter(stream, every=1.0, clock=clock)
    reporter.phase("profile")
    reporter.total = 9
    reporter.update(1, "batch 1")
    reporter.update(1)
    reporter.update(2)
    clock.now = 1.0
    reporter.update(1, "batch 8")
    reporter.update(1)
    reporter.flush()
    reporter.flush()
    assert said(stream) == [
        {"phase": "profile"},
        {"total": 9, "advance": 1, "text": "batch 1"},
        {"total": 9, "advance": 4, "text": "batch 8"},
        {"total": 9, "advance": 1, "text": "batch 8"},
    ]


def test_a_lost_desk_stops_nothing():
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    reporter = Reporter(stream, every=0.0)
    for _ in range(3):
        reporter.update(1, "still at work")
    with pytest.raises(BrokenPipeError):
        stream.close()


def run_main(body, request="{}"):
    """What a runner writes whose `run` is another: (standard output, error, status)."""
    code = (
        "import os, sys\nfrom vptkit.errors import *\nfrom vptkit.runtime.remote import profile_runner as runner\n"
        f"def run(request, reporter):\n {body}\nrunner.run = run\nrunner.main()"
    )
    done = run_child([sys.executable, "-c", code], input=request, check=False)
    return done.stdout, done.stderr, done.returncode


def test_prints_of_libraries_do_not_mix_in():
    out, err, status = run_main("print('a'); os.write(1, b'b'); sys.stdout.flush(); return request")
    assert (json.loads(out), sorted(err), status) == ({"document": {}}, ["\n", "a", "b"], 0)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("raise GateError('too wide')", {"code": 3, "message": "too wide"}),
        ("raise MissingError('no GPU')", {"code": 5, "message": "no GPU"}),
    ],
)
def test_errors_are_messages(body, error):
    out, err, status = run_main(body)
    assert (json.loads(out), err, status) == ({"error": error}, "", 0)


def test_a_missing_package_is_named():
    out, _, _ = run_main("import package_of_nowhere")
    error = json.loads(out)["error"]
    assert error["code"] == 5
    assert "-m pip install package_of_nowhere" in error["message"]


def test_defects_keep_their_traceback():
    out, err, status = run_main("1 / 0")
    assert (out, status) == ("", 1)
    assert "ZeroDivisionError" in err
