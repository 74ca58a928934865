"""Runs taken apart: interleaved, bounded, and None where a backend cannot tell."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from vptkit.errors import TargetError
from vptkit.runtime.backends.graph_protocol import Times
from vptkit.runtime.profile.latency_breakdown import ROUNDS, take_apart

IMAGES = np.zeros((1, 2, 2, 3), np.uint8)
ORDER: list[str] = []


@dataclass
class Fake:
    """A candidate that says the same each time."""

    name: str
    times: Times | None
    error: Exception | None = None
    calls: int = field(default=0)

    def take_apart(self, images):
        assert images is IMAGES
        self.calls += 1
        ORDER.append(self.name)
        if self.error is not None:
            raise self.error
        return self.times


def apart(*members, rounds=5):
    ORDER.clear()
    return take_apart(members, {member.name: IMAGES for member in members}, rounds=rounds)


def test_parts_are_summed_up_and_missing_ones_stay_missing():
    gpu = Fake("gpu", Times(enqueue=0.5, gpu=2.0, end_to_end=3.0))
    (parts,) = apart(gpu)
    assert parts["enqueue"]["p50"] == 0.5
    assert parts["gpu"]["mean"] == 2.0
    assert parts["host"] is None


def test_who_does_not_come_apart_is_asked_once():
    whole = Fake("cpu", None)
    portions = Fake("large", None, TargetError("goes in portions"))
    gpu = Fake("gpu", Times(gpu=1.0, end_to_end=1.0))
    found = apart(whole, portions, gpu, rounds=7)
    nothing = {"enqueue": None, "gpu": None, "host": None}
    assert found[:2] == [nothing, nothing]
    assert (whole.calls, portions.calls, gpu.calls) == (1, 1, 8)


def test_rounds_are_bounded_and_each_has_every_candidate():
    a, b = (Fake(name, Times(gpu=1.0, end_to_end=1.0)) for name in "ab")
    apart(a, b, rounds=10 * ROUNDS)
    assert a.calls == b.calls == ROUNDS + 1
    rounds = [set(ORDER[i : i + 2]) for i in range(2, len(ORDER), 2)]
    assert all(members == {"a", "b"} for members in rounds)
    assert ORDER[2:] != ["a", "b"] * ROUNDS  # in an order that is drawn


def test_another_error_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        apart(Fake("broken", None, ZeroDivisionError("oops")))
