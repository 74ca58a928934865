"""Threads whose results come in order. What `decoded` adds: tests/runtime/session/test_image_loader.py."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from vptkit.runtime.session.ordered_work import in_order


def ordered(work, items, threads=3, ahead=5):
    return in_order(work, items, threads=threads, ahead=ahead, name="vptkit-test")


@pytest.mark.parametrize("ahead", [0, 1, 50])
def test_results_come_in_order_though_later_ones_are_done_first(ahead):
    def work(number):
        time.sleep(0.01 * (number % 3 == 0))
        return number

    assert list(ordered(work, range(20), ahead=ahead)) == list(range(20))


def test_so_many_work_at_once():
    barrier = threading.Barrier(3, timeout=10)
    list(ordered(lambda _: barrier.wait(), range(6)))


def test_with_0_ahead_the_work_on_an_item_ends_before_the_next_is_taken():
    done = []

    def items():
        for number in range(5):
            assert len(done) == number
            yield number

    list(ordered(done.append, items(), ahead=0))


def test_an_error_of_the_work_stands_in_its_place():
    found = ordered(lambda n: 1 / (n - 2), range(5))
    assert [next(found), next(found)] == [-0.5, -1.0]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_an_error_of_the_items_comes_behind_what_came_before_it():
    def items():
        yield from range(3)
        raise KeyError("the folder went away")

    found = ordered(lambda n: n, items())
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="went away"):
        next(found)


@pytest.mark.parametrize("close", [True, False])
def test_no_thread_outlives_it(close):
    found = ordered(partial(time.sleep), [0.001] * 20)
    next(found)
    found.close() if close else list(found)
    assert not [t for t in threading.enumerate() if t.name.startswith("vptkit-test")]
