import random

import pytest

from vptkit.errors import VptkitError
from vptkit.runtime.streams.capture_policy import BackOff, CapturePolicy, Sieve


def kept(times, **settings):
    sieve = Sieve(CapturePolicy(**settings))
    return [number for number, time in enumerate(times) if sieve.cause_to_drop(time) is None]


def test_every():
    assert kept([0.0] * 7, every=3) == [0, 3, 6]


@pytest.mark.parametrize(
    ("source", "wanted", "count"), [(30, 10, 100), (30, 20, 200), (30, 60, 300), (25, 10, 100)]
)
def test_rate(source, wanted, count):
    """Ten seconds, their times rounded to milliseconds as many containers do."""
    found = kept([round(n / source, 3) for n in range(10 * source)], fps=wanted)
    assert abs(len(found) - count) <= 1


def test_a_clock_that_jumps_back_does_not_stop_the_rate():
    assert kept([1000.0, 1000.01, 0.0, 0.01, 0.1], fps=10.0) == [0, 2, 4]


@pytest.mark.parametrize(
    "wrong",
    [{"every": 0}, {"queue": 0}, {"fps": 0.0}, {"fps": float("nan")}, {"max_staleness": 0.0}],
)
def test_what_means_nothing_is_refused(wrong):
    with pytest.raises(VptkitError):
        CapturePolicy(**wrong)


def test_pauses_double_to_a_bound_and_begin_anew():
    back_off = BackOff(chance=random.Random(0))
    pauses = [back_off.pause() for _ in range(100)]
    for number, pause in enumerate(pauses[:6]):
        assert 0.5 * 2**number <= pause <= 0.5 * 2**number * 1.25
    assert pauses[6:] == [30.0] * 94
    back_off.reset()
    assert back_off.pause() < 0.7
