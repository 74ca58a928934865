"""Accuracy by class, and what came true of what was said with which confidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vptkit.plot_text import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    PAGE,
    hover,
    in_plot,
    light_axes,
    new_figure,
    plain_pictures,
)
from vptkit.scores.score_interval import interval_text, percent, wilson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vptkit.runtime.evaluation.evaluation_result import Evaluation

__all__ = ["calibration_figure", "class_figure"]

_CLASSES = 60  # bars, at most; the worst classes


@plain_pictures()
def class_figure(result: Evaluation) -> Figure:
    """A bar a class, the worst above; whiskers are Wilson's 95 % intervals.

    Args:
        result: of `vptkit.runtime.evaluation.accuracy.evaluate`.
    """
    ranked = sorted(result.classes.items(), key=lambda item: item[1]["top1"])[:_CLASSES]
    figure = new_figure(PAGE, 0.24 * len(ranked) + 0.9)
    axes = figure.subplots()
    for y, (label, of) in enumerate(ranked):
        share, (low, high) = 100 * of["top1"], (100 * bound for bound in of["interval"])
        bar = axes.barh(y, share, height=0.62, color=BLUE)[0]
        told = f"{percent(of['top1'])}, {of['right']} of {of['count']}"
        hover(bar, f"{label}: {told}; 95 % interval {interval_text(of['interval'])}")
        axes.plot([low, high], [y, y], color=INK, linewidth=1.2)
    names = [in_plot(label, 24) for label, _ in ranked]
    axes.set_yticks(range(len(ranked)), names, color=INK, fontsize=9)
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.axvline(100 * result.top1, color=FAINT, linewidth=0.9, linestyle=":")
    axes.set_xlabel(
        "right, % (dotted: all classes; lines: 95 % intervals)", color=FAINT, fontsize=9
    )
    light_axes(axes)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    return figure


@plain_pictures()
def calibration_figure(result: Evaluation) -> Figure:
    """What came true over what was said, a point a bin with images; below, how many were said so.

    Args:
        result: of `vptkit.runtime.evaluation.accuracy.evaluate`.
    """
    figure = new_figure(PAGE, 5.0)
    above, below = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    above.plot([0, 100], [0, 100], color=FAINT, linewidth=0.9, linestyle=":")
    filled = [one for one in result.calibration if one.count]
    said = [100 * one.confidence for one in filled]
    for x, one in zip(said, filled, strict=True):
        share, bounds = one.right / one.count, wilson(one.right, one.count)
        above.plot([x, x], [100 * bound for bound in bounds], color=BLUE, linewidth=1.2)
        point = above.plot([x], [100 * share], color=BLUE, marker="o", markersize=5)[0]
        told = f"said with {percent(one.confidence)}, came true in {percent(share)}"
        hover(point, f"{told}: {one.right} of {one.count} images")
    if len(filled) > 1:
        came = [100 * one.right / one.count for one in filled]
        above.plot(said, came, color=BLUE, linewidth=1.0)
    width = 100 / max(1, len(result.calibration))
    for i, one in enumerate(result.calibration):
        if one.count:
            below.bar((i + 0.5) * width, one.count, width=0.86 * width, color=ORANGE)
    above.set_ylabel("came true, %", color=FAINT)
    above.set_ylim(0, 101)
    below.set_xlim(0, 101)
    below.set_ylabel("images", color=FAINT)
    below.set_xlabel(
        f"said with this probability, %; expected calibration error {result.ece:.3f}",
        color=FAINT,
        fontsize=9,
    )
    for axes in (above, below):
        light_axes(axes)
        axes.tick_params(axis="y", labelcolor=INK)
    return figure
