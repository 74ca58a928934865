"""Candidates, held-out parts, whitening: what the pictures show."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from vptkit.tune.training_page.search_plots import (
    burstiness_figure,
    candidates_figure,
    parts_figure,
    rank_figure,
)


def labelled(figure):
    return {line.get_label(): line for axes in figure.axes for line in axes.lines}


def test_a_candidate_ends_where_it_was_given_up():
    tried = [
        {"method": "linear", "losses": [[0, 0.9]]},
        {"method": "ln", "losses": [[0, 0.9], [1, 0.5], [2, 0.4]]},
        {"method": "vpt", "losses": [[0, 0.9], [1, 0.8]]},
        {"method": "bpt", "losses": [[0, None]]},  # one image a class: nothing can be said
        {"method": "$x", "losses": []},
    ]
    lines = labelled(candidates_figure(tried, "ln"))
    assert list(lines["ln, kept"].get_xdata()) == [0, 1, 2]
    assert list(lines["vpt"].get_ydata()) == [0.9, 0.8]
    assert "linear" in lines
    assert "bpt" not in lines


def test_every_part_and_all_of_them():
    parts = [[{"epoch": e, "val_loss": 1.0 - k / 10} for e in (0, 1)] for k in range(3)]
    pooled = [{"epoch": 0, "val_loss": 0.8}, {"epoch": 1, "val_loss": None}]
    figure = parts_figure(parts, pooled, 0)
    assert (
        len([line for line in figure.axes[0].lines if line.get_label() == "one part held out"]) == 3
    )
    assert list(labelled(figure)["taken: epoch 0"].get_ydata()) == [0.8]


def test_burstiness_and_rank_by_block():
    blocks = [{"kurtosis": [30.0, 1.0], "rank": 4, "condition": 1e9}] * 2
    lines = labelled(burstiness_figure(blocks))
    assert list(lines["before whitening"].get_ydata()) == [30, 30]
    assert list(lines["after"].get_ydata()) == [1, 1]
    above, below = rank_figure(blocks).axes
    assert [bar.get_height() for bar in above.patches] == [4, 4]
    assert list(below.lines[0].get_ydata()) == [1e9, 1e9]
