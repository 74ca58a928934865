from __future__ import annotations

import threading

import pytest

from vptkit.runtime.measure.throughput import Throughput, measure_throughput


class Clock:
    """Every call of every stream takes a tenth of a second of it."""

    def __init__(self):
        self.now, self.lock, self.calls = 0.0, threading.Lock(), 0

    def __call__(self):
        return self.now

    def call(self):
        with self.lock:
            self.now += 0.1
            self.calls += 1


def test_all_streams_count():
    clock = Clock()
    found = measure_throughput([clock.call] * 4, seconds=5.0, warm_up=3, clock=clock)
    assert found.streams == 4
    assert found.calls == clock.calls - 4 * 3
    assert found.seconds == pytest.approx(0.1 * found.calls)
    assert 50 <= found.calls <= 54


def test_streams_are_at_work_at_once():
    """Each call waits for the other stream's: one after the other they would never end."""
    both = threading.Barrier(2)
    clock = Clock()

    def call():
        both.wait(60)
        clock.call()

    assert measure_throughput([call, call], seconds=0.0, warm_up=1, clock=clock).calls == 2


def test_a_stream_that_fails_ends_all():
    def fail():
        raise RuntimeError("out of memory")

    clock = Clock()
    for warm_up in (0, 1):
        with pytest.raises(RuntimeError, match="out of memory"):
            measure_throughput([clock.call, fail], seconds=1e9, warm_up=warm_up, clock=clock)


def test_the_rate_stands_beside_that_of_one_stream():
    found = Throughput(streams=2, calls=30, seconds=1.5)
    assert found.to_json(batch=8, single=100.0) == {
        "count": 2,
        "images_per_s": 160.0,
        "single_images_per_s": 100.0,
        "seconds": 1.5,
    }
