"""Means over a source's time, and news."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.support.feeds import colour_frame
from vptkit.runtime.frame_answers.smoothing import LabelChanges, Smoothing, SourceClock

A, B = np.array([1.0, 0.0]), np.array([0.0, 1.0])


def test_an_old_answer_weighs_as_its_age_says_whatever_the_frame_rate():
    coarse, fine = Smoothing(0.5), Smoothing(0.5)
    for one in (coarse, fine):
        assert one.add(A, 0.0) == pytest.approx(A)
    once = coarse.add(B, 0.5)
    for _ in range(10):
        often = fine.add(B, 0.05)
    assert once == pytest.approx([math.exp(-1), 1 - math.exp(-1)])
    assert often == pytest.approx(once)


def test_after_a_long_gap_the_new_answer_stands_alone_and_other_classes_begin_anew():
    smoothing = Smoothing(0.5)
    smoothing.add(A, 0.0)
    assert smoothing.add(B, 60.0) == pytest.approx(B)
    assert smoothing.add(np.array([0.2, 0.3, 0.5]), 0.01) == pytest.approx([0.2, 0.3, 0.5])
    assert smoothing.add(np.array([0.5, 0.3, 0.2]), 0.01, "others") == pytest.approx(
        [0.5, 0.3, 0.2]
    )


def test_the_clock_is_the_sources_own_where_it_runs_on():
    clock = SourceClock()
    frames = [(10.0, 5.0), (10.1, 7.0), (10.4, 0.0), (10.5, None), (10.2, None)]
    steps = [
        clock.step(colour_frame("a", i, (0, 0, 0), captured=captured, timestamp=timestamp))
        for i, (captured, timestamp) in enumerate(frames)
    ]
    # file time; begun anew after a loss: capture; none: capture; never backwards
    assert steps == pytest.approx([0.0, 2.0, 0.3, 0.1, 0.0])


def test_news_are_changes_and_say_how_long_the_label_before_held():
    changes = LabelChanges()
    told = [changes.is_news(label, 0.5) for label in ("a", "a", "b", "b", "b", "a")]
    assert told == [
        (True, None),
        (False, None),
        (True, 1.0),
        (False, None),
        (False, None),
        (True, 1.5),
    ]


def test_no_label_at_first_is_news_too():
    changes = LabelChanges()
    assert changes.is_news(None, 0.0) == (True, None)
    assert changes.is_news(None, 0.1) == (False, None)
