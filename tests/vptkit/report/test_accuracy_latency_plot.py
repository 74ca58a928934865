"""The demo's picture: each method a point with its intervals, each baseline a line."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from vptkit.report.accuracy_latency_plot import plot_accuracy_latency

POINTS = {"linear": (3.0, 0.7), "ln": (3.1, 0.9), "vpt-deep": (3.4, 0.8), "bpt-deep": (3.4, 0.8)}
LINES = {"backbone (no adapter)": 4.0, "unfolded": 5.0}


@pytest.fixture
def rows():
    def row(name, kind, ms, share=None):
        interval = None if share is None else [share - 0.03, share + 0.02]
        ratio = None if ms == 4.0 else [ms / 4 - 0.01, ms / 4 + 0.02]
        return {
            "name": name,
            "kind": kind,
            "ms": {"p50": ms},
            "test_top1": share,
            "test_interval": interval,
            "ratio_interval": ratio,
        }

    points = [row(name, "adapter", *figures) for name, figures in POINTS.items()]
    return [*points, *(row(name, "baseline", ms) for name, ms in LINES.items())]


@pytest.fixture
def figure(rows, tmp_path, monkeypatch) -> Figure:
    """As it was drawn."""
    drawn = []
    write = Figure.savefig

    def keep(self, *arguments, **options):
        drawn.append(self)
        write(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    plot_accuracy_latency(rows, "circumstances", tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[1:4] == b"PNG"
    return drawn[0]


def test_points_and_lines_stand_where_they_belong(figure):
    (axes,) = figure.axes
    lines = [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 2]
    assert lines == list(LINES.values())
    points = {(bars[0].get_xdata()[0], round(bars[0].get_ydata()[0])) for bars in axes.containers}
    assert points == {(ms, round(100 * share)) for ms, share in POINTS.values()}
    whisker = axes.containers[0][2][1].get_segments()[0]
    assert whisker[:, 1] == pytest.approx([67, 72])
    across = axes.containers[0][2][0].get_segments()[0]
    assert across[:, 0] == pytest.approx([2.96, 3.08])


def test_the_best_method_comes_first_and_the_bare_backbone_is_the_measure(figure):
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0] == "ln: 90.0 %, 0.78×"
    assert labels[3:] == [
        "linear: 70.0 %, 0.75×",
        "bare backbone: 4.00 ms, 1.00×",
        "unfolded graph: 5.00 ms, 1.25×",
    ]


def test_no_words_lie_on_others(figure):
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.get_legend().get_texts()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert not any(box.overlaps(axes.get_window_extent()) for box in boxes)


def test_colours_and_markers_differ(figure):
    (axes,) = figure.axes
    styles = {(bars[0].get_color(), bars[0].get_marker()) for bars in axes.containers}
    assert len({color for color, _ in styles}) == len({marker for _, marker in styles}) == 4
