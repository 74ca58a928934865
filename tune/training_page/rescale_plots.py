"""Pictures of what tuning moved: shift per layer, accuracy along λ or α, ID against OOD."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.plot_text import in_plot, new_figure, plain_pictures

from .learning_curves import SMALL, legend_below, plain_axes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["id_ood_figure", "lambda_figure", "line_loss_figure", "line_score_figure"]
__all__ += ["shift_figure"]


@plain_pictures()
def shift_figure(shift: Mapping[str, Any]) -> Figure:
    """How far γ and β of each norm moved, in the order of the forward pass.

    Args:
        shift: `vptkit.tune.run.choose_lambda.shift_record`.
    """
    layers = shift["layers"]
    figure = new_figure(SMALL[0], 1.0 + 0.2 * len(layers), dpi=130)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, key, letter, color in zip(panels, ("gamma", "beta"), "γβ", ("C0", "C1"), strict=True):
        heights = [layer[key] or 0.0 for layer in layers]
        axes.barh(range(len(layers)), heights, color=color, height=0.75)
        axes.set_xlabel(f"‖Δ{letter}‖₂")
        axes.set_title(f"{letter}: sum {shift[key]:.3g}", loc="left", fontsize="medium")
        plain_axes(axes)
        axes.grid(visible=False, axis="y")
        axes.locator_params(axis="x", nbins=3)
    names = [_short(layer["name"]) for layer in layers]
    panels[0].set_yticks(range(len(layers)), names, fontsize=9)
    panels[0].set_ylim(len(layers) - 0.4, -0.6)  # the first above
    return figure


@plain_pictures()
def lambda_figure(rescale: Mapping[str, Any]) -> Figure:
    """Accuracy against λ on val (which chooses), and on test and ood where they were measured.

    Args:
        rescale: `Rescaled.to_json()["rescale"]`.
    """
    figure = new_figure(*SMALL, dpi=130)
    axes = figure.subplots()
    _draw_top1(axes, rescale)
    axes.set_xlabel(f"λ on {_way(rescale)} (1: plain tuning)")
    legend_below(figure, axes)
    return figure


@plain_pictures()
def line_loss_figure(line: Mapping[str, Any]) -> Figure:
    """Along α: the log-loss on val, which chooses; bars are standard errors of the difference to the best.

    Args:
        line: `vptkit.tune.phases.choose_line.Line.to_json`.
    """
    figure = new_figure(*SMALL, dpi=130)
    axes = figure.subplots()
    alphas, losses, errors = (
        [row[key] for row in line["curve"]] for key in ("alpha", "val_loss", "val_loss_error")
    )
    axes.errorbar(
        alphas, losses, errors, color="C0", marker=".", elinewidth=0.8, capsize=2, label="val"
    )
    _mark_chosen(axes, line, "val_loss")
    axes.set_ylabel("log-loss, each α tempered")
    axes.set_xlabel(f"α on {_way(line)}")
    plain_axes(axes)
    legend_below(figure, axes)
    return figure


@plain_pictures()
def line_score_figure(line: Mapping[str, Any], score: str = "top-1") -> Figure:
    """Along α: the accuracies, as of `lambda_figure`.

    Args:
        line: of `line_loss_figure`.
        score: what is called top1 in there, as "mAP".
    """
    figure = new_figure(*SMALL, dpi=130)
    axes = figure.subplots()
    _draw_top1(axes, line, score)
    axes.set_xlabel(f"α on {_way(line)}")
    legend_below(figure, axes)
    return figure


@plain_pictures()
def id_ood_figure(rescale: Mapping[str, Any], score: str = "top-1") -> Figure:
    """Test accuracy (ID) against ood accuracy along λ or α, which is written beside each point.

    Args:
        rescale: `Rescaled.to_json()["rescale"]` or `Line.to_json()`, with `test_top1` and
            `ood_top1` in its curve.
        score: of `line_score_figure`.
    """
    key, letter = _key(rescale)
    figure = new_figure(4.4, 4.4, dpi=130)
    axes = figure.subplots()
    rows = [row for row in rescale["curve"] if "ood_top1" in row]
    places: dict[tuple[float, float], list[float]] = {}
    for row in rows:
        places.setdefault((row["test_top1"], row["ood_top1"]), []).append(row[key])
    axes.plot([r["test_top1"] for r in rows], [r["ood_top1"] for r in rows], "-", color="0.6")
    for place, factors in places.items():
        axes.plot(*place, "o", color="C0", ms=6)
        axes.annotate(
            _listed(factors),
            place,
            textcoords="offset points",
            xytext=(7, 5),
            fontsize=8,
        )
    for factor, marker, label in (
        (1.0, "s", f"{letter} = 1, plain tuning"),
        (rescale[key], "o", f"{letter} = {rescale[key]:g}, chosen on val"),
    ):
        for place in (place for place, factors in places.items() if factor in factors):
            axes.plot(*place, marker, ms=13, mfc="none", mec="k", mew=1.5, ls="", label=label)
    axes.margins(0.15)
    _widen(axes)
    axes.set_xlabel(f"ID: {score} on test")
    axes.set_ylabel(f"OOD: {score} on ood")
    plain_axes(axes)
    legend_below(figure, axes)
    return figure


def _listed(factors: Sequence[float]) -> str:
    """As "1, 1.25"; of many the first and the last."""
    if len(factors) > 3:
        return f"{factors[0]:g} … {factors[-1]:g}"
    return ", ".join(f"{factor:g}" for factor in factors)


def _key(rescale: Mapping[str, Any]) -> tuple[str, str]:
    """What a curve runs along: its key in the rows, and its letter."""
    return ("alpha", "α") if "alpha" in rescale else ("lambda", "λ")


def _way(rescale: Mapping[str, Any]) -> str:
    """What λ or α moves."""
    if "alpha" in rescale:
        return "the line from start (0) to end (1)"
    return {"gamma": "γ", "beta": "β", "both": "γ and β"}[rescale["what"]]


def _draw_top1(axes: Axes, rescale: Mapping[str, Any], score: str = "top-1") -> None:
    """Accuracies along λ or α, plain tuning as a line, and the chosen point."""
    key, _ = _key(rescale)
    styles = {"val": ("C0", "-"), "test": ("C2", "--"), "ood": ("C3", ":")}
    for split, (color, line) in styles.items():
        points = _points(rescale["curve"], key, f"{split}_top1")
        if points:
            label = split if split == "val" else f"{split} (not used to choose)"
            axes.plot(*zip(*points, strict=True), line, color=color, marker=".", label=label)
    _mark_chosen(axes, rescale, "val_top1")
    axes.set_ylabel(score)
    plain_axes(axes)


def _mark_chosen(axes: Axes, rescale: Mapping[str, Any], up: str) -> None:
    """A ring around the chosen λ or α, and a line at 1; the picture is widened for them."""
    key, letter = _key(rescale)
    chosen = rescale[key]
    height = next(row[up] for row in rescale["curve"] if row[key] == chosen)
    axes.axvline(1.0, color="0.6", linewidth=0.8)
    label = f"chosen {letter} = {chosen:g}"
    axes.plot([chosen], [height], "o", ms=11, mfc="none", mec="k", mew=1.6, label=label)
    _widen(axes)


def _widen(axes: Axes) -> None:
    """Show at least five points each way: one image more or less shall not look like an effect."""
    for limits, put in ((axes.get_xlim(), axes.set_xlim), (axes.get_ylim(), axes.set_ylim)):
        middle, reach = sum(limits) / 2, max((limits[1] - limits[0]) / 2, 0.025)
        put(middle - reach, middle + reach)


def _points(
    curve: Sequence[Mapping[str, float]], across: str, up: str
) -> list[tuple[float, float]]:
    return [(row[across], row[up]) for row in curve if up in row]


def _short(name: str) -> str:
    """`blocks.3.norm1` → `3.norm1`."""
    return in_plot(name.removeprefix("blocks."), 32)
