"""Latency as a distribution and over the batch size: drawn of what there is."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")

from vptkit.plot_text import inline_svg
from vptkit.runtime.profile.latency_plots import batch_figure, distribution_figure


def row(name="a", batch=1, p50=2.0, **more):
    ms = {"p50": p50, "p90": 2 * p50, "p99": 3 * p50, "mean": p50}
    return {"name": name, "backend": "cpu", "batch": batch, "ms": ms, **more}


def test_each_row_is_a_line():
    rows = [row("<a>", distribution=[[0, 1.0], [50, 2.0], [100, 900.0]]), row("$b$"), row("a", 8)]
    figure = distribution_figure(rows)
    first, second = figure.axes
    assert [len(axes.lines) for axes in figure.axes] == [2, 1]
    assert first.lines[0].get_xydata().tolist() == [[1, 0], [2, 50], [900, 100]]
    assert first.lines[1].get_xydata().tolist() == [[2, 50], [4, 90], [6, 99]]
    assert first.get_xlim()[1] < 10, "the slowest one call does not set the scale"
    assert "&lt;a&gt;" in inline_svg(figure, "x")
    assert "batch 8" in second.get_title(loc="left")


def test_nothing_to_draw():
    assert distribution_figure([]) is None
    assert batch_figure([row(), row("b")]) is None


def test_rates_over_the_batch():
    axes = batch_figure([row(batch=8, p50=4.0), row(batch=1), row("b")]).axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[1, 500], [8, 2000]]]


def test_a_clock_that_stood_still():
    assert distribution_figure([row(p50=0.0)]).axes[0].get_xlim()[1] == 1
    assert batch_figure([row(p50=0.0), row(batch=2, p50=0.0)]) is not None
