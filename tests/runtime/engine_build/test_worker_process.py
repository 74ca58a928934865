"""A talk with a child process, however that ends; the child is gone afterwards."""

from __future__ import annotations

import os
import sys
import time

import pytest

from vptkit.python_child import python_command
from vptkit.runtime.engine_build.worker_process import COMMAND, Outcome, converse

HEAD = """
import json, os, signal, sys, time
request = json.loads(sys.stdin.readline())
def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)
"""


@pytest.fixture
def talk(tmp_path):
    """A function: what the child does once it was asked → the outcome."""

    def run(body, *, head=HEAD, **settings):
        script = tmp_path / "child.py"
        script.write_text(head + body)
        command = [sys.executable, str(script)]
        return converse({"pid": str(tmp_path / "pid")}, command=command, **settings)

    return run


def test_the_real_child_is_a_module_of_ours():
    assert python_command("vptkit.runtime.engine_build.build_worker") == COMMAND


def test_an_answer_ends_the_talk(talk):
    outcome = talk(
        "say('log', severity='WARNING', text='slow')\n"
        "say('log', severity='ERROR', text='odd')\n"
        "say('result', plan=3)\nsys.stdin.read()\n"  # it waits for us to hang up
    )
    assert outcome.result == {"event": "result", "plan": 3}
    assert outcome.log == "WARNING: slow\nERROR: odd"
    assert (outcome.missing, outcome.ended) == (None, None)


def test_something_is_missing(talk):
    assert talk("say('missing', message='no GPU')") == Outcome(missing="no GPU")


def test_a_child_that_does_not_start(talk):
    outcome = talk("", head="import sys\nsys.exit('no such library')\n")
    assert outcome.ended == ("start", "exit status 1: no such library")


def test_a_crash_is_named_by_its_signal(talk):
    outcome = talk(
        "say('log', severity='INFO', text='so far')\nos.kill(os.getpid(), signal.SIGABRT)"
    )
    assert outcome.ended == ("crash", "the library ended with SIGABRT")
    assert outcome.log == "INFO: so far"


def test_half_a_line_is_not_read(talk):
    outcome = talk("""sys.stdout.write('{"event": "res'); sys.stdout.flush(); sys.exit(4)""")
    assert outcome.ended == ("start", "exit status 4: no message")


HANG = "open(request['pid'], 'w').write(str(os.getpid()))\ntime.sleep(60)"


def gone(tmp_path):
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    return True


def test_no_answer_in_time(talk, tmp_path):
    beats = []
    start = time.monotonic()
    outcome = talk(HANG, timeout_s=3.0, beat_s=0.5, listen=beats.append)
    assert time.monotonic() - start < 30
    assert outcome.ended == ("timeout", "no answer after 3 s")
    assert {event["event"] for event in beats} == {"beat"}
    assert len(beats) > 1
    assert gone(tmp_path)


def test_who_listens_may_end_it(talk, tmp_path):
    def listen(event):
        if event["event"] == "beat" and (tmp_path / "pid").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        talk(HANG, beat_s=0.1, listen=listen, timeout_s=60.0)
    assert gone(tmp_path)
