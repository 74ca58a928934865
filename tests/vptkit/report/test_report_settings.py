"""Without settings nothing is judged or measured."""

from __future__ import annotations

from vptkit.report.report_settings import ReportSettings


def test_nothing_is_asked_for_by_default():
    settings = ReportSettings()
    assert (settings.data, settings.measure, settings.profiles) == (None, 0.0, ())
