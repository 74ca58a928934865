"""Rounds in which others worked are left out and made again."""

from __future__ import annotations

import pytest

from tests.support import quiet


@pytest.fixture
def clock(monkeypatch):
    """Time that stands still but for what a test adds: seconds, busy cores' seconds, our own."""
    now = {"seconds": 0.0, "busy": 0.0, "own": 0.0}

    def sleep(seconds):
        now["seconds"] += seconds

    monkeypatch.setattr(quiet.time, "perf_counter", lambda: now["seconds"])
    monkeypatch.setattr(quiet.time, "monotonic", lambda: now["seconds"])
    monkeypatch.setattr(quiet.time, "sleep", sleep)
    monkeypatch.setattr(quiet, "_busy", lambda: now["busy"])
    monkeypatch.setattr(quiet, "_own", lambda: now["own"])
    return now


def test_what_is_disturbed_is_made_again(clock):
    made = []

    def call():
        disturbed = len(made) in (1, 2)
        made.append(clock["seconds"])
        clock["seconds"] += 1
        clock["own"] += 2
        clock["busy"] += 2 + (0.2 if disturbed else 0.05)
        return len(made)

    found, left_out = quiet.quiet_turns({"a": call}, 3)
    assert (found, left_out) == ({"a": [1, 4, 5]}, 2)


def test_it_waits_for_stillness_and_ends(clock, monkeypatch):
    def sleep(seconds):
        clock["seconds"] += seconds
        clock["busy"] += seconds

    monkeypatch.setattr(quiet.time, "sleep", sleep)
    with pytest.raises(TimeoutError, match="others worked for 5 s"):
        quiet.quiet_turns({"a": lambda: 1}, 3, patience=5)
    assert clock["seconds"] >= 5


def test_this_machine_is_read():
    assert quiet._busy() > 0
    assert 0 < quiet._own() < quiet._busy()
