"""Frames of several sources in mixed batches: the answers, their age, and what is dropped."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tests.support.bank_cases import family
from tests.support.exported_banks import export_family
from tests.support.feeds import FakeFeed, colour_frame
from vptkit.errors import VptkitError
from vptkit.runtime import open_session
from vptkit.runtime.frame_answers.stream_run import StreamRun, StreamSettings

RED, GREEN, BLUE = (200, 10, 10), (10, 200, 10), (10, 10, 200)


@pytest.fixture
def session(make_bundle):
    with open_session(make_bundle(), threads=1) as session:
        yield session


def frames(name, colours, **fields):
    return [colour_frame(name, i, colour, **fields) for i, colour in enumerate(colours)]


def answers(session, feeds, clock=lambda: 1.0, **settings):
    adapters = {feed.name: session.bundle.adapter_names[0] for feed in feeds}
    run = StreamRun(
        session, feeds, threading.Condition(), adapters, StreamSettings(**settings), clock=clock
    )
    with run:
        return list(run), run


def labels(found):
    return [(a.frame.source, a.frame.number, a.prediction.label) for a in found]


def test_every_frame_of_files_is_answered_in_order(session):
    feeds = [FakeFeed("a", frames("a", [RED, GREEN, BLUE])), FakeFeed("b", frames("b", [BLUE]))]
    found, run = answers(session, feeds, batch=4)
    assert sorted(labels(found)) == [
        ("a", 0, "red"), ("a", 1, "green"), ("a", 2, "blue"), ("b", 0, "blue")
    ]  # fmt: skip
    assert [(r.name, r.captured, r.served, r.broken) for r in run.reports()] == [
        ("a", 3, 3, 0),
        ("b", 1, 1, 0),
    ]
    assert all(feed.opened == 1 and feed.closed for feed in feeds)


def test_the_age_is_from_capture_to_answer(session):
    feeds = [FakeFeed("a", frames("a", [RED] * 3, captured=0.75), live=True)]
    found, run = answers(session, feeds)
    assert [a.age for a in found] == [0.25] * 3
    assert run.reports()[0].age_ms == {"p50": 250.0, "p99": 250.0}


def test_a_live_frame_that_became_too_old_is_dropped_and_a_files_is_not(session):
    old = {"captured": 0.25}
    feeds = [
        FakeFeed("cam", [*frames("cam", [RED], **old), colour_frame("cam", 1, RED, captured=0.9)], live=True),
        FakeFeed("file", frames("file", [RED], **old)),
    ]  # fmt: skip
    found, run = answers(session, feeds)
    assert sorted(labels(found)) == [("cam", 1, "red"), ("file", 0, "red")]
    assert [(r.served, dict(r.dropped)) for r in run.reports()] == [(1, {"stale": 1}), (1, {})]


def test_the_slowest_source_does_not_set_the_pace(session):
    """A camera that gives nothing at all, and nobody waits for its first frame."""
    silent = FakeFeed("silent", [], live=True, stays=True)
    fast = FakeFeed("fast", frames("fast", [RED] * 40, captured=1.0), live=True, stays=True)
    found, run = answers(session, [silent, fast], batch=2, frames=40, max_wait=0.0)
    assert len(found) == 40
    assert [r.served for r in run.reports()] == [0, 40]


@pytest.mark.parametrize("count", [1, 3, 5])
def test_it_ends_after_so_many_frames(session, count):
    feeds = [FakeFeed("a", frames("a", [RED] * 9))]
    assert len(answers(session, feeds, batch=2, frames=count)[0]) == count


def test_it_ends_after_a_duration_though_nothing_comes(session):
    times = iter(np.arange(0, 100, 0.5))
    feeds = [FakeFeed("a", [], live=True, stays=True)]
    assert answers(session, feeds, clock=lambda: float(next(times)), duration=2.0)[0] == []


def test_smoothing_holds_a_flicker_down_and_events_are_changes(session):
    def feed():
        colours = [RED] * 4 + [BLUE] + [RED] * 3 + [BLUE] * 8
        return FakeFeed(
            "a", [colour_frame("a", i, c, timestamp=i / 10) for i, c in enumerate(colours)]
        )

    raw, _ = answers(session, [feed()], on_change=True)
    assert [(a.frame.number, a.prediction.label) for a in raw] == [
        (0, "red"), (4, "blue"), (5, "red"), (8, "blue")
    ]  # fmt: skip
    assert raw[0].held is None
    assert [a.held for a in raw[1:]] == pytest.approx([0.4, 0.1, 0.3])
    calm, run = answers(session, [feed()], on_change=True, smooth=0.5)
    assert [a.prediction.label for a in calm] == ["red", "blue"]
    assert calm[1].frame.number > 9
    assert run.reports()[0].served == 16


def test_sources_are_smoothed_apart(session):
    feeds = [
        FakeFeed(n, [colour_frame(n, i, c, timestamp=i / 10) for i in range(5)])
        for n, c in (("a", RED), ("b", BLUE))
    ]
    found, _ = answers(session, feeds, smooth=5.0)
    assert {(a.frame.source, a.prediction.label) for a in found} == {("a", "red"), ("b", "blue")}


def test_frames_that_overflow_are_errors_of_their_own(make_bundle):
    with open_session(make_bundle(shift=float("inf")), threads=1) as session:
        found, run = answers(session, [FakeFeed("a", frames("a", [RED]))])
    assert "a frame 0: the logits hold NaN or Inf" in found[0].prediction.error
    assert run.reports()[0].broken == 1


@pytest.mark.parametrize("batch", ["dynamic", 2, 4])
def test_baked_bundles_answer_as_predict_does(make_bundle, batch):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (5, 40, 50, 3), dtype=np.uint8)
    shots = [colour_frame("a", i, (0, 0, 0)) for i in range(5)]
    for shot, image in zip(shots, images, strict=True):
        object.__setattr__(shot, "pixels", image)
    with open_session(make_bundle(batch=batch), threads=1) as session:
        found, _ = answers(session, [FakeFeed("a", shots)], batch=3)
        expected = list(session.predict(images))
    assert [a.prediction.top for a in found] == [p.top for p in expected]
    assert all(np.array_equal(a.prediction.logits, p.logits) for a, p in zip(found, expected, strict=True))  # fmt: skip


def test_adapters_of_a_bank_are_mixed_in_one_batch(tmp_path):
    members = family(kinds=("bilinear", "norms"))  # 5 and 4 classes
    images = members.case.images
    shots = {
        name: [colour_frame(name, i, (0, 0, 0)) for i in range(len(images))] for name in ("a", "b")
    }
    for some in shots.values():
        for shot, image in zip(some, images, strict=True):
            object.__setattr__(shot, "pixels", image)
    feeds = [FakeFeed(name, some) for name, some in shots.items()]
    adapters = {"a": "bilinear", "b": "norms"}
    with open_session(export_family(tmp_path, members), threads=1) as session:
        settings = StreamSettings(batch=2 * len(images))
        run = StreamRun(session, feeds, threading.Condition(), adapters, settings)
        found = list(run)
        expected = {
            source: list(session.predict(images, adapter=name, batch=2 * len(images)))
            for source, name in adapters.items()
        }
    assert run.batches == 1
    for answer in found:
        alone = expected[answer.frame.source][answer.frame.number]
        assert (answer.prediction.adapter, answer.prediction.top) == (alone.adapter, alone.top)
        assert np.array_equal(answer.prediction.logits, alone.logits)


@pytest.mark.parametrize(
    "wrong",
    [{"batch": 0}, {"frames": 0}, {"smooth": 0.0}, {"duration": -1.0}, {"max_wait": -1.0},
     {"max_wait": float("nan")}, {"smooth": float("nan")}],
)  # fmt: skip
def test_settings_that_mean_nothing(wrong):
    with pytest.raises(VptkitError, match="expected"):
        StreamSettings(**wrong)
