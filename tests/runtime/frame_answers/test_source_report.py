"""A source's counts as JSON and as a line of the table."""

from __future__ import annotations

from vptkit.runtime.frame_answers.source_report import SourceReport, report_text


def test_counts_ages_and_rate():
    report = SourceReport(name="cam1", adapter="birds", live=True, captured=12)
    assert report.to_json()["age_ms"] is None
    assert report.fps is None
    for i in range(5):
        report.add(0.020, 10 + i * 0.25, broken=i == 0)
    report.dropped.update(newer=6, stale=1)
    assert report.to_json() == {
        "source": "cam1", "adapter": "birds", "live": True, "captured": 12,
        "dropped": {"newer": 6, "stale": 1}, "served": 5, "broken": 1, "reconnects": 0,
        "fps": 4.0, "age_ms": {"p50": 20.0, "p99": 20.0},
    }  # fmt: skip
    header, line = report_text([report]).splitlines()
    assert header.split()[:3] == ["source", "adapter", "captured"]
    assert line.split() == [
        "cam1",
        "birds",
        "12",
        "6",
        "newer,",
        "1",
        "stale",
        "5",
        "0",
        "4.0",
        "20.0",
        "20.0",
    ]


def test_an_error_is_told():
    report = SourceReport(name="x", adapter="a", live=False, error="gone")
    assert report.to_json()["error"] == "gone"
