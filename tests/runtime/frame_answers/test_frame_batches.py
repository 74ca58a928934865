"""What makes a batch: what is there, from whom, and what is not waited for."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tests.support.feeds import FakeFeed, colour_frame
from vptkit.errors import DataError
from vptkit.images.preprocess import Preprocess
from vptkit.runtime.frame_answers.frame_batches import FrameBatches, gather

PREPROCESS = Preprocess(input_size=(3, 24, 16), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0)


class Waits:
    """A condition that moves a clock instead of waiting, and lets something happen then."""

    def __init__(self, then=lambda: None):
        self.now, self.waits, self.then = 0.0, [], then

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None

    def wait(self, seconds):
        self.waits.append(seconds)
        self.now += seconds
        self.then()


def frames(name, count):
    return [colour_frame(name, i, (0, 0, 0)) for i in range(count)]


def names(found):
    return [(frame.source, frame.number) for frame in found]


def gathered(feeds, count, max_wait=0.005, then=lambda: None):
    condition = Waits(then)
    found = gather(feeds, condition, count, max_wait, clock=lambda: condition.now)
    return names(found), condition.waits


def test_sources_take_turns_in_a_batch():
    feeds = [FakeFeed("file", frames("file", 9)), FakeFeed("cam", frames("cam", 1), stays=True)]
    found, waits = gathered(feeds, 4)
    assert found == [("file", 0), ("cam", 0), ("file", 1), ("file", 2)]
    assert waits == []


def test_a_slow_source_is_waited_for_as_long_as_is_allowed_and_no_longer():
    fast = FakeFeed("fast", frames("fast", 1), stays=True, live=True)
    slow = FakeFeed("slow", [], stays=True, live=True)
    assert gathered([fast, slow], 4) == ([("fast", 0)], [0.005])
    fast.frames = frames("fast", 1)
    found, waits = gathered([fast, slow], 4, then=lambda: slow.frames.extend(frames("slow", 1)))
    assert found == [("fast", 0), ("slow", 0)]
    assert len(waits) == 1
    fast.frames = frames("fast", 1)
    assert gathered([fast, slow], 4, max_wait=0.0) == ([("fast", 0)], [])


def test_nobody_waits_when_every_source_has_given_one():
    feeds = [FakeFeed(name, frames(name, 1), stays=True) for name in "ab"]
    assert gathered(feeds, 8) == ([("a", 0), ("b", 0)], [])


def test_none_at_the_end():
    assert gathered([FakeFeed("a"), FakeFeed("b")], 8) == ([], [])


def test_who_has_given_nothing_yet_is_asked_first():
    feeds = [FakeFeed("a", frames("a", 3)), FakeFeed("b", [], stays=True)]
    found, _ = gathered(feeds, 4, then=lambda: feeds[1].frames.extend(frames("b", 3)))
    assert found == [("a", 0), ("a", 1), ("a", 2), ("b", 0)]


def test_batches_are_prepared_in_order_and_end():
    feeds = [FakeFeed("a", frames("a", 5)), FakeFeed("b", frames("b", 2))]
    batches = FrameBatches(feeds, threading.Condition(), PREPROCESS, batch=4, max_wait=0.0)
    try:
        found = []
        while batch := batches.next(timeout=60):
            assert 1 <= len(batch) <= 4
            assert all(item.shape == (24, 16, 3) and item.dtype == np.uint8 for _, item in batch)
            found += [frame for frame, _ in batch]
        assert batch == []
    finally:
        batches.close()
    for name, count in (("a", 5), ("b", 2)):
        assert [f.number for f in found if f.source == name] == list(range(count))


def test_a_frame_that_cannot_be_prepared_is_an_error_and_the_others_go_on():
    thin = colour_frame("a", 0, (0, 0, 0))
    object.__setattr__(thin, "pixels", np.zeros((1, 200_000, 3), dtype=np.uint8))
    feeds = [FakeFeed("a", [thin, *frames("a", 1)])]
    batches = FrameBatches(feeds, threading.Condition(), PREPROCESS, batch=4, max_wait=0.0)
    try:
        (_, bad), (_, good) = batches.next(timeout=60)
    finally:
        batches.close()
    assert isinstance(bad, DataError)
    assert "a frame 0" in str(bad)
    assert good.shape == (24, 16, 3)


def test_a_defect_of_a_feed_reaches_whoever_asks():
    feed = FakeFeed("a", frames("a", 1))
    feed.take = lambda now: 1 / 0
    batches = FrameBatches([feed], threading.Condition(), PREPROCESS, batch=4, max_wait=0.0)
    try:
        with pytest.raises(ZeroDivisionError):
            batches.next(timeout=60)
    finally:
        batches.close()
