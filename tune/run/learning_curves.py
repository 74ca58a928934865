"""Learning curves as a picture: loss and accuracy over epochs, and how the probe was found."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_file
from vptkit.plot_text import in_plot, new_figure, plain_pictures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

__all__ = ["plot_curves"]


@plain_pictures()
def plot_curves(
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    path: Path,
    title: str = "",
    score: str = "top-1",
) -> None:
    """Loss and accuracy over epochs, for one run or several side by side.

    Args:
        histories: name → its records: the start, if it is a probe ("epoch" 0, `val_loss`,
            `val_top1`, `probe`: its grid of strengths gets a panel of its own), and the epochs
            (also `train_loss`, `train_top1`, and `part` if head and norms learn in turns: shaded
            where the head does; what has `taken` gets a dot).
        path: of the PNG; replaced if it exists.
        title: of the whole picture, as the result of the run.
        score: what `val_top1` is.
    """
    probes = {name: h[0]["probe"] for name, h in histories.items() if "probe" in h[0]}
    epochs = any(len(history) > 1 or "probe" not in history[0] for history in histories.values())
    panels = bool(probes) + 2 * epochs
    figure = new_figure(4.5 * panels, 3.6, dpi=130)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    if probes:
        _plot_strengths(axes.pop(0), probes, list(histories))
    if axes:
        loss, accuracy = axes
        _plot_epochs(loss, accuracy, histories)
        accuracy.set_ylabel(score)
    if title:
        figure.suptitle(in_plot(title))
    with atomic_file(path) as part:
        figure.savefig(part, format="png")


def _plot_strengths(
    axes: Axes, probes: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> None:
    """Log-loss over the strength of L2; a dot where val is best."""
    for name, probe in probes.items():
        color, grid = f"C{names.index(name)}", probe["grid"]
        strengths = [point["strength"] for point in grid]
        train, val = (_numbers(grid, f"{part}_loss") for part in ("train", "val"))
        axes.plot(strengths, train, color=color, linewidth=1, linestyle="--", alpha=0.6)
        axes.plot(strengths, val, color=color, linewidth=2, label=in_plot(name))
        chosen = strengths.index(probe["strength"])
        axes.plot(strengths[chosen], val[chosen], "o", color=color)
    axes.set(xscale="log", title="linear probe", ylabel="cross-entropy")
    axes.set_xlabel("strength of L2 (solid: validation, dashed: training)")
    _plain(axes)
    if len(probes) > 1:
        axes.legend(framealpha=1, edgecolor="none")


def _plot_epochs(
    loss: Axes, accuracy: Axes, histories: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
    """Loss and accuracy; epoch 0 is the probe, and has no training loss of its own."""
    for number, (name, history) in enumerate(histories.items()):
        color = f"C{number}"
        epochs = [record["epoch"] for record in history]
        for axes, key in ((loss, "loss"), (accuracy, "top1")):
            val, train = (_numbers(history, f"{part}_{key}") for part in ("val", "train"))
            thin: dict[str, Any] = {
                "linewidth": 1,
                "linestyle": "--",
                "alpha": 0.6,
                "marker": _mark(train),
            }
            axes.plot(epochs, train, color=color, **thin)
            thick: dict[str, Any] = {"linewidth": 2, "label": in_plot(name), "marker": _mark(val)}
            axes.plot(epochs, val, color=color, **thick)
            for place, record in enumerate(history):
                if record.get("taken"):
                    label = f"taken: epoch {record['epoch']}" if len(histories) == 1 else None
                    dot = (epochs[place], val[place], "o")
                    axes.plot(*dot, color=color, markersize=8, label=label)
            _shade_head_phases(axes, history)
    loss.set_ylabel("cross-entropy")
    for axes in (loss, accuracy):
        axes.set_xlabel("epoch (solid: validation, dashed: training)")
        axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
        _plain(axes)
    handles, labels = accuracy.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))  # the head phases have one name
    accuracy.legend(once.values(), once.keys(), framealpha=1, edgecolor="none")  # grey on white


def _mark(values: Sequence[float]) -> str:
    """A dot for what is alone, of which no line would be seen."""
    return "o" if sum(map(math.isfinite, values)) == 1 else ""


def _numbers(records: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """What the records say, NaN where they say nothing."""
    found = (record.get(key) for record in records)
    return [math.nan if value is None else value for value in found]


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _shade_head_phases(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    """Grey where the head learns alone, if a history knows of phases."""
    history = [record for record in history if record["epoch"]]
    if not history:
        return
    changes = [b["epoch"] - 0.5 for a, b in pairwise(history) if a.get("part") != b.get("part")]
    edges = [history[0]["epoch"] - 0.5, *changes, history[-1]["epoch"] + 0.5]
    for first, last in list(pairwise(edges))[::2]:
        if "part" in history[0]:
            axes.axvspan(first, last, color="0.92", zorder=0, linewidth=0, label="head alone")
