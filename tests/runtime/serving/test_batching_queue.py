"""One queue: batches across requests, bounds, deadlines, and changes between them."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from vptkit.runtime.serving.batching_queue import BatchingQueue
from vptkit.runtime.serving.http_error import HttpError

LONG = 30.0


class Runs:
    """A session that answers each image with its number and its adapter's; it can be held up."""

    def __init__(self):
        self.batches = []
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()

    def __call__(self, images, adapters):
        self.batches.append(list(adapters))
        self.begun.set()
        assert self.go.wait(LONG)
        if "broken" in adapters:
            raise ValueError("broken")
        return np.float32(
            [[image.flat[0], len(name)] for image, name in zip(images, adapters, strict=False)]
        )


@pytest.fixture
def runs():
    return Runs()


@pytest.fixture
def queue(runs):
    made = BatchingQueue(runs, "old", max_batch=4, max_wait=LONG, size=8)
    yield made
    runs.go.set()
    made.close(LONG)


def images(*numbers):
    return np.uint8(numbers).reshape(-1, 1, 1, 1) * np.ones((1, 2, 2, 3), dtype=np.uint8)


def ask(queue, *numbers, adapter="a", seconds=LONG):
    ticket = queue.ticket(len(numbers))
    future = queue.submit(
        ticket, images(*numbers), [adapter] * len(numbers), time.monotonic() + seconds
    )
    future.add_done_callback(lambda _: queue.release(ticket))
    return future


def hold(queue, runs):
    """A run that goes on until `runs.go`."""
    runs.go.clear()
    first = ask(queue, 0)
    assert runs.begun.wait(LONG)
    return first


def test_an_image_alone_is_run_at_once(queue, runs):
    """Although it might wait for LONG: nothing else is coming."""
    begun = time.monotonic()
    assert ask(queue, 7, adapter="birds").result(LONG).tolist() == [[7, 5]]
    assert time.monotonic() - begun < LONG / 2
    assert queue.held == 0


def test_what_waits_is_one_batch_whoever_asked_and_for_what(queue, runs):
    first = hold(queue, runs)
    others = [ask(queue, 1, adapter="a"), ask(queue, 2, 3, adapter="bb"), ask(queue, 4, 5)]
    runs.go.set()
    assert first.result(LONG).tolist() == [[0, 1]]
    assert [one.result(LONG).tolist() for one in others] == [
        [[1, 1]],
        [[2, 2], [3, 2]],
        [[4, 1], [5, 1]],
    ]
    assert runs.batches == [["a"], ["a", "bb", "bb", "a"], ["a"]]


def test_it_waits_for_what_is_coming_and_not_longer(runs):
    queue = BatchingQueue(runs, "", max_batch=4, max_wait=LONG, size=8)
    slow = queue.ticket(1)
    first = ask(queue, 1)
    time.sleep(0.02)
    assert not runs.batches
    queue.submit(slow, images(2), ["b"], time.monotonic() + LONG)
    assert first.result(LONG) is not None
    assert runs.batches == [["a", "b"]]
    queue.release(slow)
    gone = queue.ticket(1)
    second = ask(queue, 3)
    queue.release(gone)  # it was broken
    assert second.result(LONG).tolist() == [[3, 1]]
    queue.close(LONG)


def test_max_wait_ends_it(runs):
    queue = BatchingQueue(runs, "", max_batch=4, max_wait=0.01, size=8)
    never = queue.ticket(1)
    assert ask(queue, 1).result(LONG).tolist() == [[1, 1]]
    queue.release(never)
    queue.close(LONG)


def test_a_full_queue_refuses_at_once(queue, runs):
    hold(queue, runs)
    ask(queue, *range(7))
    with pytest.raises(HttpError, match="8 of 8 images wait") as caught:
        queue.ticket(1)
    assert (caught.value.status, caught.value.retry_after) == (503, 1)
    with pytest.raises(HttpError, match="at most 8 in a request") as caught:
        queue.ticket(9)
    assert caught.value.status == 413


def test_what_is_late_or_forgotten_is_not_run(queue, runs):
    first = hold(queue, runs)
    late, forgotten, good = ask(queue, 1, seconds=-1), ask(queue, 2), ask(queue, 3)
    forgotten.cancel()
    runs.go.set()
    with pytest.raises(HttpError, match="its deadline passed") as caught:
        late.result(LONG)
    assert caught.value.status == 503
    assert good.result(LONG).tolist() == [[3, 1]]
    assert first.result(LONG) is not None
    assert runs.batches == [["a"], ["a"]]


def test_a_run_that_fails_tells_its_own_images_alone(queue, runs):
    with pytest.raises(ValueError, match="broken"):
        ask(queue, 1, adapter="broken").result(LONG)
    assert ask(queue, 2).result(LONG).tolist() == [[2, 1]]


def test_a_change_stands_between_earlier_and_later_requests(queue, runs):
    """Earlier ones, even those that are still decoded, end under what they began with."""
    order = []
    early = queue.ticket(1)
    done = queue.change("new", lambda: order.append(("change", len(runs.batches))))
    late = queue.ticket(1)
    assert (early.state, late.state) == ("old", "new")
    second = queue.submit(late, images(2), ["late"], time.monotonic() + LONG)
    time.sleep(0.02)
    assert not runs.batches
    assert not order
    first = queue.submit(early, images(1), ["early"], time.monotonic() + LONG)
    assert first.result(LONG).tolist() == [[1, 5]]
    queue.release(early)
    done.result(LONG)
    assert second.result(LONG).tolist() == [[2, 4]]
    queue.release(late)
    assert runs.batches == [["early"], ["late"]]
    assert order == [("change", 1)]


def test_a_change_that_fails_says_so_and_the_queue_goes_on(queue):
    with pytest.raises(ZeroDivisionError):
        queue.change("new", lambda: 1 // 0).result(LONG)
    assert ask(queue, 1).result(LONG).tolist() == [[1, 1]]


def test_closing_answers_what_waits_and_refuses_the_rest(queue, runs):
    first = hold(queue, runs)
    second = ask(queue, 1)
    queue.close(0)
    with pytest.raises(HttpError, match="being shut down"):
        queue.ticket(1)
    runs.go.set()
    assert first.result(LONG) is not None
    assert second.result(LONG) is not None
