"""Pictures of what tuning moved: what they show, not how they look."""

from __future__ import annotations

import functools

import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vptkit.tune.methods.layer_norms import Shift
from vptkit.tune.run import rescale_plots
from vptkit.tune.run.choose_lambda import shift_record
from vptkit.tune.run.learning_curves import plot_curves

pytestmark = pytest.mark.usefixtures("pictures")
SHIFTS = [
    Shift(name="norm_pre", gamma=0.5, beta=0.25),
    Shift(name="blocks.0.norm1", gamma=1.5, beta=None),
]


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """A function: draw, write, and give back the figure."""
    kept = []
    real = rescale_plots._save

    def save(figure, path):
        kept.append(figure)
        real(figure, path)

    monkeypatch.setattr(rescale_plots, "_save", save)

    def draw(plot, document):
        path = tmp_path / "x.png"
        plot(document, path, "birds")
        assert path.read_bytes().startswith(b"\x89PNG")
        return kept[-1]

    return draw


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


def test_shift_apart(drawn):
    figure = drawn(rescale_plots.plot_shift, shift_record(SHIFTS))
    gamma, beta = figure.axes
    assert [bar.get_height() for bar in gamma.patches] == [0.5, 1.5]
    assert [bar.get_height() for bar in beta.patches] == [0.25, 0.0]
    assert [label.get_text() for label in beta.get_xticklabels()] == ["norm_pre", "0.norm1"]
    assert "γ: sum 2" in gamma.get_title(loc="left")
    assert "β: sum 0.25" in beta.get_title(loc="left")


def test_shift_record():
    record = shift_record(SHIFTS)
    assert (record["total"], record["gamma"], record["beta"]) == (2.25, 2.0, 0.25)
    assert record["layers"][1] == {"name": "blocks.0.norm1", "gamma": 1.5, "beta": None}


@pytest.mark.parametrize("outside", [True, False])
def test_the_chosen_one_is_marked(drawn, outside):
    (axes,) = drawn(rescale_plots.plot_lambda, rescale_of(2.0, outside=outside)).axes
    labelled = {line.get_label(): line for line in axes.lines}
    marked = labelled["chosen λ = 2"]
    assert (list(marked.get_xdata()), list(marked.get_ydata())) == ([2.0], [0.8])
    assert list(labelled["val"].get_xdata()) == [0.5, 0.9, 1.0, 2.0]
    assert ("test (not used to choose)" in labelled) == outside
    if outside:
        assert list(labelled["ood (not used to choose)"].get_ydata()) == [0.3, 0.4, 0.2]


def test_an_image_more_does_not_look_like_an_effect_along_lambda(drawn):
    rescale = rescale_of(1.0, outside=False)
    for number, row in enumerate(rescale["curve"]):
        row["val_top1"] = 0.7 + 0.002 * number
    (axes,) = drawn(rescale_plots.plot_lambda, rescale).axes
    low, high = axes.get_ylim()
    assert high - low >= 0.05 - 1e-9
    assert low < 0.7 < 0.706 < high
    assert "by more than √n of the n val images" in axes.get_xlabel()  # why 0.706 lost


def test_id_against_ood(drawn):
    (axes,) = drawn(rescale_plots.plot_id_ood, rescale_of(2.0)).axes
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
def test_the_line_shows_the_loss_that_chose_and_below_it_accuracies(drawn, outside):
    plot = functools.partial(rescale_plots.plot_line, score="mAP" if outside else "top-1")
    above, below = drawn(plot, line_of(0.5, outside=outside)).axes
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
    assert "the smallest log-loss" in below.get_xlabel()  # the rule


@pytest.mark.slow
def test_id_against_ood_along_the_line(drawn):
    plot = functools.partial(rescale_plots.plot_id_ood, score="mAP")
    (axes,) = drawn(plot, line_of(0.5)).axes
    assert axes.get_xlabel() == "ID: mAP on test"
    labelled = {line.get_label(): line for line in axes.lines}
    chosen, plain = labelled["α = 0.5, chosen on val"], labelled["α = 1, plain tuning"]
    assert (list(chosen.get_xdata()), list(chosen.get_ydata())) == ([0.75], [0.275])
    assert (list(plain.get_xdata()), *plain.get_ydata()) == ([0.75], pytest.approx(0.15))
    assert {text.get_text() for text in axes.texts} == {"0", "0.5", "1"}
    without_end = line_of(0.5)
    del without_end["curve"][2]  # it was not finite
    (axes,) = drawn(rescale_plots.plot_id_ood, without_end).axes
    assert "α = 1, plain tuning" not in {line.get_label() for line in axes.lines}


@pytest.mark.parametrize(
    ("parts", "spans"),
    [
        (["head", "head", "body", "head", "body"], [(0.5, 2.5), (3.5, 4.5)]),
        (["head", "body"], [(0.5, 1.5)]),
        ([None, None], []),
    ],
)
def test_the_learning_curves_are_shaded_where_the_head_learns(monkeypatch, tmp_path, parts, spans):
    shaded = []
    monkeypatch.setattr(Axes, "axvspan", lambda axes, low, high, **_: shaded.append((low, high)))
    numbers = {f"{split}_{key}": 0.5 for split in ("train", "val") for key in ("loss", "top1")}
    history = [
        {"epoch": epoch, **numbers, **({"part": part} if part else {})}
        for epoch, part in enumerate(parts, 1)
    ]
    plot_curves({"birds": history}, tmp_path / "x.png")
    assert shaded == 2 * spans  # loss, accuracy


def test_the_grey_has_one_name(monkeypatch, tmp_path):
    legends = []
    real = Axes.legend
    monkeypatch.setattr(Axes, "legend", lambda *a, **k: legends.append(real(*a, **k)))
    numbers = {f"{split}_{key}": 0.5 for split in ("train", "val") for key in ("loss", "top1")}
    parts = ["head", "body", "head", "body"]
    cyclic = [{"epoch": i, **numbers, "part": part} for i, part in enumerate(parts, 1)]
    plot_curves({"birds": cyclic, "cars": cyclic}, tmp_path / "x.png")
    (legend,) = legends
    assert sorted(text.get_text() for text in legend.get_texts()) == ["birds", "cars", "head alone"]


def test_an_epoch_alone_has_a_dot_and_so_has_what_was_taken(monkeypatch, tmp_path):
    drawn, titles = [], []
    real, title = Axes.plot, Figure.suptitle
    monkeypatch.setattr(Axes, "plot", lambda *a, **k: drawn.extend(real(*a, **k)) or drawn[-1:])
    monkeypatch.setattr(Figure, "suptitle", lambda *a, **k: titles.append(title(*a, **k)))
    probe = {"strength": 1.0, "grid": [{"strength": 1.0, "train_loss": 0.1, "val_loss": 0.2}]}
    start = {"epoch": 0, "val_loss": 0.6, "val_top1": 0.8, "probe": probe}
    one = {f"{split}_{key}": 0.5 for split in ("train", "val") for key in ("loss", "top1")}
    history = [start, {"epoch": 1, **one, "taken": True}]
    plot_curves({"birds": history}, tmp_path / "x.png", "birds: val 50.0 %")
    dots = [line for line in drawn if line.get_marker() == "o"]
    assert [line.get_label() for line in dots].count("taken: epoch 1") == 2  # loss, accuracy
    lone = [line for line in dots if line.get_linestyle() == "--"]
    assert len(lone) == 2  # the training's one epoch
    assert [text.get_text() for text in titles] == ["birds: val 50.0 %"]
