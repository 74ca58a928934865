"""The confusion matrix as a picture."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vptkit.errors import OutputError
from vptkit.plot_text import inline_svg
from vptkit.runtime.evaluation import confusion_plot
from vptkit.runtime.evaluation.confusion_plot import (
    _colours,
    _drawn,
    confusion_in_page,
    plot_confusion,
)
from vptkit.runtime.evaluation.evaluation_result import answers_to, judge

pytest.importorskip("matplotlib")


def judged(confusion, labels):
    truth, answered = (
        np.repeat(where, np.ravel(confusion))
        for where in map(np.ravel, np.indices(np.shape(confusion)))
    )
    logits = np.eye(len(labels), dtype=np.float32)[answered]
    images = [Path("x.png")] * len(truth)
    return judge(Path("d"), "test", tuple(labels), images, truth, answers_to(logits, truth))


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
@pytest.mark.slow
def test_pictures_are_written(tmp_path, suffix):
    path = tmp_path / f"plot.{suffix}"
    plot_confusion(judged([[3, 1], [0, 2]], ("$\\frac{$", "_\x1b花" * 300)), path, "a\nb $")
    assert path.stat().st_size > 5000
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.slow
def test_right_is_blue_wrong_is_orange_and_the_rest_is_white(tmp_path):
    plot_confusion(judged([[9, 0], [9, 0]], ("a", "b")), tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        colours = {c for _, c in image.convert("RGB").getcolors(maxcolors=1 << 24)}
    assert {(0x2A, 0x6F, 0x97), (0xC8, 0x55, 0x1B), (255, 255, 255)} <= colours


def test_the_larger_the_share_of_a_row_the_deeper():
    colours = _colours(np.array([[1, 99], [0, 4]]), np.array([100, 4]))
    assert colours.shape == (2, 2, 4)
    assert colours[1, 0, 3] == 0
    assert colours[1, 1, 3] > colours[0, 0, 3] > 0
    assert colours[1, 1].tolist() == [0x2A, 0x6F, 0x97, 255]


def test_classes_that_have_no_say_are_left_out():
    confusion = np.array([[5, 0, 1], [0, 0, 0], [0, 0, 0]])
    assert _drawn(confusion)[0].tolist() == [0, 2]


def test_of_many_classes_those_with_mistakes_are_drawn():
    confusion = np.eye(300, dtype=int)
    confusion[7, 250] = 3
    drawn, left_out = _drawn(confusion)
    assert (len(drawn), left_out) == (100, True)
    assert {7, 250} <= set(drawn)
    assert (np.diff(drawn) > 0).all()


def test_each_cell_says_what_it_is():
    figure, least, told = confusion_in_page(judged([[3, 1], [0, 2]], ("<a>", "b")))
    assert (least, told) == (None, "")
    titles = re.findall("<title>(.*?)</title>", inline_svg(figure, "confusion"))
    assert titles == [
        "&lt;a&gt; answered as &lt;a&gt;: 3 of 4, 75.0 %",
        "&lt;a&gt; answered as b: 1 of 4, 25.0 %",
        "b answered as b: 2 of 2, 100.0 %",
    ]


def test_of_very_many_cells_those_that_count_most_have_a_text(monkeypatch):
    monkeypatch.setattr(confusion_plot, "_EXPLAINED", 2)
    figure, _, _ = confusion_in_page(judged([[3, 1], [2, 4]], "ab"))
    titles = re.findall("<title>(.*?):", inline_svg(figure, "confusion"))
    assert titles == ["a answered as a", "b answered as b"]


@pytest.mark.parametrize(("classes", "right"), [(20, True), (60, False)])
def test_of_many_classes_only_mistakes_have_a_text(classes, right):
    """And the picture is too large for a telephone, which is said."""
    confusion = np.eye(classes, dtype=int)
    confusion[0, 1] = 2
    figure, least, _ = confusion_in_page(judged(confusion, [f"c{i}" for i in range(classes)]))
    titles = re.findall("<title>(.*?):", inline_svg(figure, "confusion"))
    assert "c0 answered as c1" in titles
    assert ("c5 answered as c5" in titles) == right
    assert least > 360


def test_another_suffix(tmp_path):
    with pytest.raises(OutputError, match=r"\.pdf, \.png, \.svg"):
        plot_confusion(judged([[1, 0], [0, 1]], "ab"), tmp_path / "a.bmp")
