from __future__ import annotations

import pytest

from vptkit.runtime.http_server.recent_requests import RecentRequests


def test_the_last_minute_counts():
    now = [0.0]
    recent = RecentRequests(lambda: now[0])
    assert recent.summary()["p50_ms"] is None
    recent.add(9.0, 1, 200)
    now[0] = 50.0
    for status in (200, 200, 503):
        recent.add(0.1, 2, status)
    recent.add(0.5, 0, 200)  # no images: not a question
    found = recent.summary()
    assert (found["requests"], found["failed"], found["seconds"]) == (4, 1, 50)
    assert found["images_per_s"] == pytest.approx(5 / 50)
    now[0] = 61.0
    found = recent.summary()
    assert (found["requests"], found["seconds"]) == (3, 60)
    assert found["p50_ms"] == pytest.approx(100)
    now[0] = 1000.0
    assert recent.summary()["requests"] == 0


def test_a_flood_keeps_no_more_than_it_must():
    recent = RecentRequests(lambda: 0.0)
    for _ in range(30_000):
        recent.add(0.1, 1, 200)
    assert recent.summary()["requests"] == 20_000
