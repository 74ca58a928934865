"""Pictures of layers: as wide as the times, and each box says what it is."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("matplotlib")

from tests.runtime.layers.test_layer_time import layer, profile
from vptkit.errors import OutputError
from vptkit.plot_text import inline_svg
from vptkit.runtime.layers import layer_plots
from vptkit.runtime.layers.layer_plots import (
    flame_figure,
    flame_slices,
    places_figure,
    plot_layers,
)
from vptkit.runtime.layers.operator_costs import Cost

RAN = profile(
    layer("patch", "patch_embed", 2, 2, 2, operator="Conv"),
    layer("q", "blocks.0.attention", 3, 3, 3, cost=Cost(1_500_000, 0)),
    layer("s", "blocks.0.attention", 1, 1, 1, operator="Softmax"),
    layer("k", "blocks.0.attention", 2, 2, 2),
    layer("fc", "blocks.0.mlp", 1, 1, 1),
    layer("x", "blocks.1", 1, 1, 1, operator="<b>\x1b$"),
    name="<i>$\\frac$",
)


def test_boxes_lie_upon_each_other():
    boxes = flame_slices(RAN)
    levels = {n: [box for box in boxes if box.level == n] for n in range(4)}
    assert [box.ms for box in levels[0]] == [10]
    assert [box.names[0] for box in levels[1]] == ["patch_embed", "blocks.0", "blocks.1"]
    assert [box.names[0] for box in levels[2]] == ["Conv", "attention", "mlp", "<b>\x1b$"]
    assert [(box.names[0], box.start, box.ms) for box in levels[3]] == [
        ("MatMul", 2, 5),
        ("Softmax", 7, 1),
        ("MatMul", 8, 1),
    ]
    for n in range(1, 4):
        for box in levels[n]:
            assert any(
                low.start <= box.start and box.start + box.ms <= low.start + low.ms
                for low in levels[n - 1]
            )
    assert levels[3][0].told == "blocks.0.attention: MatMul × 2: 5.00 ms, 50.0 %"


def test_what_cannot_be_seen_is_left_out():
    thin = profile(layer("a", "head", 1e-6), layer("b", "blocks.0.mlp", 1))
    assert "head" not in [box.names[0] for box in flame_slices(thin)]
    assert [box.ms for box in flame_slices(profile(layer("a", "head", 0)))] == []


def test_every_part_says_its_time():
    titles = re.findall("<title>(.*?)</title>", inline_svg(places_figure(RAN), "bars"))
    assert "blocks.0.mlp: 1.00 ms, 10.0 %" in titles
    assert len(titles) == 4
    flame = inline_svg(flame_figure(RAN, 4.6), "flame")
    assert "&lt;b&gt;\\x1b$: 1.00 ms" in flame
    assert "\x1b" not in flame
    assert len(re.findall("<title>", flame)) == len(flame_slices(RAN))


def test_words_are_written_where_they_fit():
    many = profile(*(layer("q", f"blocks.{i}.mlp", 1) for i in range(24)))
    written = [text.get_text() for text in flame_figure(many, 4.6).axes[0].texts]
    assert "blocks.3" not in written
    assert {"3", "a"} <= set(written)
    one = profile(layer("q", "blocks.0.mlp", 1))
    written = [text.get_text() for text in flame_figure(one, 4.6).axes[0].texts]
    assert written == ["a", "blocks.0", "mlp", "MatMul"]


def test_the_title_stands_above_the_legend(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(layer_plots, "write_figure", lambda figure, path: drawn.append(figure))
    plot_layers([RAN], tmp_path / "p.png")
    figure = drawn[0]
    figure.draw_without_rendering()
    bars = figure.axes[0]
    title = next(t for t in bars.get_children() if getattr(t, "get_text", str)().startswith("<i>"))
    assert not title.get_window_extent().overlaps(bars.get_legend().get_window_extent())


def test_pictures_are_written(tmp_path):
    plot_layers([RAN, RAN], tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 5000
    with pytest.raises(OutputError, match=r"\.png"):
        plot_layers([RAN], tmp_path / "p.bmp")
