"""The picture of a sweep: every trial that reported is in it, the chosen one marked."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("torch")

from PIL import Image

from vptkit.tune.sweep import sweep_plot
from vptkit.tune.sweep.sweep_plot import plot_sweep

SPACE = {"lr": {"low": 1e-4, "high": 1e-1, "log": True}, "pool": ["token", "avg"], "rank": [4, 8]}


def trial(number, state="finished", val=0.5, **settings):
    return {
        "trial": number,
        "state": state,
        "val_loss": val,
        "settings": {"lr": 1e-3, "pool": "token", "rank": 4, **settings},
    }


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """A function: trials and the best → the panels that were drawn."""
    panels = []
    real = sweep_plot._draw

    def draw(axes, *arguments):
        real(axes, *arguments)
        panels.append(axes)

    monkeypatch.setattr(sweep_plot, "_draw", draw)

    def plot(*rows, best=None):
        document = {
            "space": SPACE,
            "leaderboard": list(rows),
            "best": None if best is None else {"trial": best},
        }
        plot_sweep(document, tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as image:
            assert image.format == "PNG"
        return {axes.get_xlabel(): axes for axes in panels}

    return plot


def points(axes):
    return {c.get_label(): sorted(map(tuple, c.get_offsets().tolist())) for c in axes.collections}


def test_each_setting_has_its_panel_and_each_trial_its_point(drawn):
    panels = drawn(
        trial(0, val=0.5, lr=1e-2, pool="avg"),
        trial(1, val=0.75, rank=8),
        trial(2, state="pruned", val=0.25),
        trial(3, state="waiting", val=None),  # it reported nothing
        best=1,
    )
    assert list(panels) == list(SPACE)
    assert points(panels["rank"]) == {
        "finished": [(4.0, 0.5), (8.0, 0.75)],
        "pruned or not over": [(4.0, 0.25)],
        "chosen": [(8.0, 0.75)],
    }
    assert points(panels["pool"])["finished"] == [(0.0, 0.75), (1.0, 0.5)]
    assert [t.get_text() for t in panels["pool"].get_xticklabels()] == ["token", "avg"]


def test_scales_are_those_of_the_ranges(drawn):
    panels = drawn(trial(0))
    assert panels["lr"].get_xscale() == "log"
    assert panels["rank"].get_xscale() == "linear"  # less than a factor of ten
    assert "chosen" not in points(panels["lr"])
