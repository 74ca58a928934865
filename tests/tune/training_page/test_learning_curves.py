"""Learning curves: what they show, not how they look."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from matplotlib.axes import Axes

from vptkit.tune.training_page.learning_curves import learning_figures

NUMBERS = {f"{split}_{key}": 0.5 for split in ("train", "val") for key in ("loss", "top1")}
PROBE = {"strength": 1.0, "grid": [{"strength": 1.0, "train_loss": 0.1, "val_loss": 0.2}]}
START = {"epoch": 0, "val_loss": 0.6, "val_top1": 0.8, "probe": PROBE}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(
    ("parts", "spans"),
    [
        (["head", "head", "body", "head", "body"], [(0.5, 2.5), (3.5, 4.5)]),
        (["head", "body"], [(0.5, 1.5)]),
        ([None, None], []),
    ],
)
def test_they_are_shaded_where_the_head_learns(monkeypatch, parts, spans):
    shaded = []
    monkeypatch.setattr(Axes, "axvspan", lambda axes, low, high, **_: shaded.append((low, high)))
    history = [
        {"epoch": epoch, **NUMBERS, **({"part": part} if part else {})}
        for epoch, part in enumerate(parts, 1)
    ]
    assert set(learning_figures({"birds": history})) == {"loss", "score"}
    assert shaded == 2 * spans


def test_the_grey_has_one_name():
    parts = ["head", "body", "head", "body"]
    cyclic = [{"epoch": i, **NUMBERS, "part": part} for i, part in enumerate(parts, 1)]
    figures = learning_figures({"birds": cyclic, "cars": cyclic}, "mAP")
    assert sorted(legend(figures["loss"])) == ["birds", "cars", "head alone"]
    assert figures["score"].axes[0].get_ylabel() == "mAP"


def test_an_epoch_alone_has_a_dot_and_so_has_what_was_taken():
    figures = learning_figures({"birds": [START, {"epoch": 1, **NUMBERS, "taken": True}]})
    assert set(figures) == {"probe", "loss", "score"}
    for key in ("loss", "score"):
        lines = figures[key].axes[0].lines
        assert "taken: epoch 1" in legend(figures[key])
        (lone,) = [line for line in lines if line.get_linestyle() == "--"]
        assert lone.get_marker() == "o"  # the training's one epoch


def test_what_was_averaged_is_marked_together():
    history = [START, *({"epoch": i, **NUMBERS, "taken": i > 1} for i in (1, 2, 3))]
    (axes,) = learning_figures({"birds": history})["loss"].axes
    (dots,) = [line for line in axes.lines if line.get_label() == "averaged: epochs 2, 3"]
    assert list(dots.get_xdata()) == [2, 3]


def test_the_probe_alone_has_no_curves():
    assert set(learning_figures({"birds": [START]})) == {"probe"}
    assert learning_figures({"birds": []}) == {}
