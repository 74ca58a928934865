"""Pictures of what tuning moved: what they show, not how they look."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from vptkit.tune.methods.layer_norms import Shift
from vptkit.tune.run.choose_lambda import shift_record
from vptkit.tune.training_page import rescale_plots

SHIFTS = [
    Shift(name="norm_pre", gamma=0.5, beta=0.25),
    Shift(name="blocks.0.norm1", gamma=1.5, beta=None),
]


def rescale_of(chosen, *, outside=True):
    rows = []
    for factor, val, test, ood in (
        (0.5, 0.6, 0.7, 0.3),
        (1.0, 0.7, 0.8, 0.4),
        (2.0, 0.8, 0.8, 0.2),
    ):
        row = {"lambda": factor, "val_top1": val, "val_loss": 1.0}
        rows.append({**row, "test_top1": test, "ood_top1": ood} if outside else row)
    rows.insert(1, {"lambda": 0.9, "val_top1": 0.65, "val_loss": 1.0})  # of the golden section
    return {"what": "gamma", "lambda": chosen, "curve": rows}


def test_shift_apart():
    figure = rescale_plots.shift_figure(shift_record(SHIFTS))
    gamma, beta = figure.axes
    assert [bar.get_width() for bar in gamma.patches] == [0.5, 1.5]
    assert [bar.get_width() for bar in beta.patches] == [0.25, 0.0]
    assert [label.get_text() for label in gamma.get_yticklabels()] == ["norm_pre", "0.norm1"]
    assert "γ: sum 2" in gamma.get_title(loc="left")
    assert "β: sum 0.25" in beta.get_title(loc="left")


def test_shift_record():
    record = shift_record(SHIFTS)
    assert (record["total"], record["gamma"], record["beta"]) == (2.25, 2.0, 0.25)
    assert record["layers"][1] == {"name": "blocks.0.norm1", "gamma": 1.5, "beta": None}


@pytest.mark.parametrize("outside", [True, False])
def test_the_chosen_one_is_marked(outside):
    (axes,) = rescale_plots.lambda_figure(rescale_of(2.0, outside=outside)).axes
    labelled = {line.get_label(): line for line in axes.lines}
    marked = labelled["chosen λ = 2"]
    assert (list(marked.get_xdata()), list(marked.get_ydata())) == ([2.0], [0.8])
    assert list(labelled["val"].get_xdata()) == [0.5, 0.9, 1.0, 2.0]
    assert ("test (not used to choose)" in labelled) == outside
    if outside:
        assert list(labelled["ood (not used to choose)"].get_ydata()) == [0.3, 0.4, 0.2]


def test_an_image_more_does_not_look_like_an_effect_along_lambda():
    rescale = rescale_of(1.0, outside=False)
    for number, row in enumerate(rescale["curve"]):
        row["val_top1"] = 0.7 + 0.002 * number
    (axes,) = rescale_plots.lambda_figure(rescale).axes
    low, high = axes.get_ylim()
    assert high - low >= 0.05 - 1e-9
    assert low < 0.7 < 0.706 < high


def test_id_against_ood():
    (axes,) = rescale_plots.id_ood_figure(rescale_of(2.0)).axes
    labelled = {line.get_label(): line for line in axes.lines}
    chosen, plain = labelled["λ = 2, chosen on val"], labelled["λ = 1, plain tuning"]
    assert (list(chosen.get_xdata()), list(chosen.get_ydata())) == ([0.8], [0.2])
    assert (list(plain.get_xdata()), list(plain.get_ydata())) == ([0.8], [0.4])
    assert {text.get_text() for text in axes.texts} == {"0.5", "1", "2"}
    for low, high in (axes.get_xlim(), axes.get_ylim()):
        assert high - low >= 0.05 - 1e-9


def line_of(chosen, *, outside=True):
    rows = []
    for alpha, loss, error, val in (
        (0.0, 0.5, 0.1, 0.8),
        (0.5, 0.3, 0.0, 0.7),
        (1.0, 0.4, 0.2, 0.9),
    ):
        row = {"alpha": alpha, "val_loss": loss, "val_loss_error": error, "val_top1": val}
        rows.append({**row, "test_top1": 0.75, "ood_top1": 0.4 - alpha / 4} if outside else row)
    return {"alpha": chosen, "curve": rows}


@pytest.mark.slow
@pytest.mark.parametrize("outside", [True, False])
def test_the_line_shows_the_loss_that_chose_and_below_it_accuracies(outside):
    line = line_of(0.5, outside=outside)
    (above,) = rescale_plots.line_loss_figure(line).axes
    (below,) = rescale_plots.line_score_figure(line, "mAP" if outside else "top-1").axes
    assert below.get_ylabel() == ("mAP" if outside else "top-1")
    ((curve, caps, (bars,)),) = above.containers
    assert (list(curve.get_xdata()), list(curve.get_ydata())) == ([0, 0.5, 1], [0.5, 0.3, 0.4])
    assert len(caps) == 2
    ends = [[float(end) for end in segment[:, 1]] for segment in bars.get_segments()]
    assert ends == [pytest.approx(pair) for pair in ([0.4, 0.6], [0.3, 0.3], [0.2, 0.6])]
    for axes, height in ((above, 0.3), (below, 0.7)):
        marked = {line.get_label(): line for line in axes.lines}["chosen α = 0.5"]
        assert (list(marked.get_xdata()), list(marked.get_ydata())) == ([0.5], [height])
    labelled = {line.get_label(): line for line in below.lines}
    assert list(labelled["val"].get_ydata()) == [0.8, 0.7, 0.9]
    assert ("ood (not used to choose)" in labelled) == outside
    assert "start (0) to end (1)" in below.get_xlabel()


@pytest.mark.slow
def test_id_against_ood_along_the_line():
    (axes,) = rescale_plots.id_ood_figure(line_of(0.5), "mAP").axes
    assert axes.get_xlabel() == "ID: mAP on test"
    labelled = {line.get_label(): line for line in axes.lines}
    chosen, plain = labelled["α = 0.5, chosen on val"], labelled["α = 1, plain tuning"]
    assert (list(chosen.get_xdata()), list(chosen.get_ydata())) == ([0.75], [0.275])
    assert (list(plain.get_xdata()), *plain.get_ydata()) == ([0.75], pytest.approx(0.15))
    assert {text.get_text() for text in axes.texts} == {"0", "0.5", "1"}
    without_end = line_of(0.5)
    del without_end["curve"][2]  # it was not finite
    (axes,) = rescale_plots.id_ood_figure(without_end).axes
    assert "α = 1, plain tuning" not in {line.get_label() for line in axes.lines}
