"""Learning curves as a picture."""

from __future__ import annotations

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
def plot_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Loss and accuracy over epochs, for one run or several side by side.

    Args:
        histories: name → the records of its epochs (`train_loss`, `val_loss`, `train_top1`,
            `val_top1`, and `part` if head and norms learn in turns: shaded where the head does).
        path: of the PNG; replaced if it exists.
    """
    figure = new_figure(9, 3.6, dpi=130)
    loss, accuracy = figure.subplots(1, 2)
    for number, (name, history) in enumerate(histories.items()):
        color = f"C{number}"
        epochs = [record["epoch"] for record in history]
        for axes, key in ((loss, "loss"), (accuracy, "top1")):
            val = [record[f"val_{key}"] for record in history]
            train = [record[f"train_{key}"] for record in history]
            axes.plot(epochs, train, color=color, linewidth=1, linestyle="--", alpha=0.6)
            axes.plot(epochs, val, color=color, linewidth=2, label=in_plot(name))
            _shade_head_phases(axes, history)
    loss.set_ylabel("cross-entropy")
    accuracy.set_ylabel("top-1")
    for axes in (loss, accuracy):
        axes.set_xlabel("epoch (solid: validation, dashed: training)")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = accuracy.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))  # the head phases have one name
    accuracy.legend(once.values(), once.keys(), framealpha=1, edgecolor="none")  # grey on white
    with atomic_file(path) as part:
        figure.savefig(part, format="png")


def _shade_head_phases(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    """Grey where the head learns alone, if a history knows of phases."""
    changes = [b["epoch"] - 0.5 for a, b in pairwise(history) if a.get("part") != b.get("part")]
    edges = [history[0]["epoch"] - 0.5, *changes, history[-1]["epoch"] + 0.5]
    for first, last in list(pairwise(edges))[::2]:
        if "part" in history[0]:
            axes.axvspan(first, last, color="0.92", zorder=0, linewidth=0, label="head alone")
