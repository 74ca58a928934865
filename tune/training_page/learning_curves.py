"""Learning curves: loss and accuracy over epochs, and how the probe was found."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from vptkit.plot_text import in_plot, new_figure, plain_pictures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SMALL", "learning_figures", "legend_below", "numbers_of", "plain_axes"]

SMALL = (4.4, 3.5)  # inches: letters of 10 points can still be read on a screen of 360 pixels
_SHADE = "#e6e8eb"  # a page makes it dark where it is dark


def learning_figures(
    histories: Mapping[str, Sequence[Mapping[str, Any]]], score: str = "top-1"
) -> dict[str, Figure]:
    """The probe's grid, loss and accuracy, as far as the runs have them.

    Args:
        histories: name → its records, for one run or several side by side: the start, if it is a
            probe ("epoch" 0, `val_loss`, `val_top1`, `probe`), and the epochs (also `train_loss`,
            `train_top1`, and `part` if head and norms learn in turns: shaded where the head does;
            what has `taken` gets a dot).
        score: what `val_top1` is.

    Returns:
        "probe", "loss" and "score", those that there are.
    """
    names = list(histories)
    probes = {name: h[0]["probe"] for name, h in histories.items() if h and "probe" in h[0]}
    found = {"probe": _strengths(probes, names)} if probes else {}
    if any(record["epoch"] for history in histories.values() for record in history):
        found["loss"] = _curves(histories, "loss", "cross-entropy")
        found["score"] = _curves(histories, "top1", score)
    return found


@plain_pictures()
def _strengths(probes: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> Figure:
    """Log-loss over the strength of L2; a dot where val is best."""
    figure = new_figure(*SMALL, dpi=130)
    axes = figure.subplots()
    for name, probe in probes.items():
        color, grid = f"C{names.index(name)}", probe["grid"]
        strengths = [point["strength"] for point in grid]
        train, val = (numbers_of(grid, f"{part}_loss") for part in ("train", "val"))
        axes.plot(strengths, train, color=color, linewidth=1.3, linestyle="--")
        axes.plot(strengths, val, color=color, linewidth=2, label=in_plot(name, 24))
        chosen = strengths.index(probe["strength"])
        axes.plot(strengths[chosen], val[chosen], "o", color=color)
    axes.set(xscale="log", ylabel="cross-entropy")
    axes.set_xlabel("strength of L2 (solid: validation, dashed: training)")
    plain_axes(axes)
    if len(probes) > 1:
        legend_below(figure, axes)
    return figure


@plain_pictures()
def _curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], key: str, told: str) -> Figure:
    """One figure over epochs; epoch 0 is the probe, and has no training loss of its own."""
    figure = new_figure(*SMALL, dpi=130)
    axes, alone = figure.subplots(), len(histories) == 1
    for number, (name, history) in enumerate(histories.items()):
        color = f"C{number}"
        epochs = [record["epoch"] for record in history]
        train, val = (numbers_of(history, f"{part}_{key}") for part in ("train", "val"))
        label = "validation" if alone else in_plot(name, 24)
        thin: dict[str, Any] = {"linewidth": 1.3, "linestyle": "--"}
        thin_label = "training" if alone and any(map(math.isfinite, train)) else None
        axes.plot(epochs, train, color=color, marker=_mark(train), label=thin_label, **thin)
        axes.plot(epochs, val, color=color, linewidth=2, marker=_mark(val), label=label)
        _dots(axes, history, val, color, named=alone)
        _shade_head_phases(axes, history)
    axes.set_ylabel(told)
    axes.set_xlabel("epoch" if alone else "epoch (solid: validation, dashed: training)")
    axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    plain_axes(axes)
    legend_below(figure, axes)
    return figure


def _dots(
    axes: Axes,
    history: Sequence[Mapping[str, Any]],
    val: Sequence[float],
    color: str,
    *,
    named: bool,
) -> None:
    """What was taken: one epoch, or those that were averaged."""
    places = [place for place, record in enumerate(history) if record.get("taken")]
    if not places:
        return
    epochs = [history[place]["epoch"] for place in places]
    listed = ", ".join(map(str, epochs))
    told = f"taken: epoch {listed}" if len(epochs) == 1 else f"averaged: epochs {listed}"
    heights = [val[place] for place in places]
    axes.plot(epochs, heights, "o", color=color, markersize=8, label=told if named else None)


def _mark(values: Sequence[float]) -> str:
    """A dot for what is alone, of which no line would be seen."""
    return "o" if sum(map(math.isfinite, values)) == 1 else ""


def numbers_of(records: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """What the records say, NaN where they say nothing."""
    found = (record.get(key) for record in records)
    return [math.nan if value is None else value for value in found]


def plain_axes(axes: Axes) -> None:
    """A faint grid, and no box."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure, axes: Axes) -> None:
    """A legend under the axes, where it hides nothing; each name once."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(
        once.values(), once.keys(), loc="outside lower center", ncols=2, frameon=False, fontsize=9
    )


def _shade_head_phases(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    """Grey where the head learns alone, if a history knows of phases."""
    history = [record for record in history if record["epoch"]]
    if not history or "part" not in history[0]:
        return
    changes = [b["epoch"] - 0.5 for a, b in pairwise(history) if a.get("part") != b.get("part")]
    edges = [history[0]["epoch"] - 0.5, *changes, history[-1]["epoch"] + 0.5]
    for first, last in list(pairwise(edges))[::2]:
        axes.axvspan(first, last, color=_SHADE, zorder=0, linewidth=0, label="head alone")
