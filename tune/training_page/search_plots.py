"""Pictures of what else a run tried or met: candidates, held-out parts, whitening block by block."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from vptkit.plot_text import in_plot, new_figure, plain_pictures

from .learning_curves import SMALL, legend_below, numbers_of, plain_axes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["burstiness_figure", "candidates_figure", "parts_figure", "rank_figure"]

_WIDE = 50  # of an excess kurtosis: a Laplacian has 3
_DECADES = 1000  # from here on each decade is enough


@plain_pictures()
def candidates_figure(tried: Sequence[Mapping[str, Any]], kept: str) -> Figure:
    """Log-loss on val of each candidate; where a line ends, no further epoch was spent on it.

    Args:
        tried: rows of `vptkit.tune.auto.auto_run`, with `losses`: [[epoch, log-loss], …].
        kept: the name of one.
    """
    figure = new_figure(*SMALL, dpi=130)
    axes = figure.subplots()
    for number, row in enumerate(tried):
        points = [(epoch, loss) for epoch, loss in row.get("losses", ()) if loss is not None]
        if not points:
            continue
        name = in_plot(row["method"], 24) + (", kept" if row["method"] == kept else "")
        if len(points) == 1:  # the probe, which all of them begin as
            axes.axhline(points[0][1], color=f"C{number}", linestyle=":", label=name)
            continue
        axes.plot(*zip(*points, strict=True), color=f"C{number}", label=name)
        axes.plot(*points[-1], "o", color=f"C{number}")
    axes.set_ylabel("log-loss on validation")
    _by_epoch(axes)
    legend_below(figure, axes)
    return figure


@plain_pictures()
def parts_figure(
    parts: Sequence[Sequence[Mapping[str, Any]]], pooled: Sequence[Mapping[str, Any]], chosen: int
) -> Figure:
    """Log-loss over epochs of each held-out part, and of all that was held out, which chooses.

    Args:
        parts: the records of each part; a part without images has NaN.
        pooled: `vptkit.tune.training.train_state.CrossValidation.records`.
        chosen: the epoch.
    """
    figure = new_figure(*SMALL, dpi=130)
    axes = figure.subplots()
    for records in parts:
        epochs = [record["epoch"] for record in records]
        losses = numbers_of(records, "val_loss")
        axes.plot(epochs, losses, color="C0", alpha=0.45, linewidth=1, label="one part held out")
    epochs, losses = [record["epoch"] for record in pooled], numbers_of(pooled, "val_loss")
    axes.plot(epochs, losses, color="C1", linewidth=2, label="all parts")
    for epoch, loss in zip(epochs, losses, strict=True):
        if epoch == chosen and math.isfinite(loss):
            axes.plot([epoch], [loss], "o", color="C1", markersize=8, label=f"taken: epoch {epoch}")
    axes.set_ylabel("cross-entropy")
    _by_epoch(axes)
    legend_below(figure, axes)
    return figure


@plain_pictures()
def burstiness_figure(blocks: Sequence[Mapping[str, Any]]) -> Figure:
    """Excess kurtosis of what prompts are compared with, before and after whitening.

    Args:
        blocks: rows of the record `whitening`, with `kurtosis`: [before, after].
    """
    figure = new_figure(*SMALL, dpi=130)
    axes = figure.subplots()
    for place, name, color in ((0, "before whitening", "C1"), (1, "after", "C0")):
        heights = [block["kurtosis"][place] for block in blocks]
        axes.plot(range(1, len(blocks) + 1), heights, marker="o", ms=4, color=color, label=name)
    axes.axhline(0, color="0.6", linewidth=0.8, label="Gaussian")
    axes.axhline(3, color="0.6", linewidth=0.8, linestyle="--", label="Laplacian")
    largest = max(abs(value) for block in blocks for value in block["kurtosis"])
    if largest > _WIDE:
        axes.set_yscale("symlog", linthresh=10)
    _plain_numbers(axes)
    axes.set_ylabel("excess kurtosis")
    _by_block(axes)
    legend_below(figure, axes)
    return figure


@plain_pictures()
def rank_figure(blocks: Sequence[Mapping[str, Any]]) -> Figure:
    """Rank and condition of Σ block by block.

    Args:
        blocks: rows of the record `whitening`.
    """
    figure = new_figure(*SMALL, dpi=130)
    above, below = figure.subplots(2, 1, sharex=True)
    numbers = range(1, len(blocks) + 1)
    above.bar(numbers, [block["rank"] for block in blocks], color="C0", width=0.7)
    above.set_ylabel("rank of Σ")
    below.plot(numbers, [block["condition"] for block in blocks], color="C1", marker="o", ms=4)
    below.set_yscale("log")
    _plain_numbers(below)
    below.set_ylabel("condition of Σ")
    plain_axes(above)
    _by_block(below)
    return figure


def _plain_numbers(axes: Axes) -> None:
    """As "2e+07", and few of them: matplotlib writes out what lies between decades."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    axes.minorticks_off()
    if axes.get_yscale() == "log":
        low, high = axes.get_ylim()
        steps = (1.0,) if high > _DECADES * low else (1.0, 2.0, 5.0)
        axes.yaxis.set_major_locator(LogLocator(subs=steps, numticks=5))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.3g}"))


def _by_epoch(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    plain_axes(axes)


def _by_block(axes: Axes) -> None:
    axes.set_xlabel("block")
    axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    plain_axes(axes)
