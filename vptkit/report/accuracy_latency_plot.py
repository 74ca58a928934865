"""Accuracy over latency: the demo's methods, or bundles side by side, beside their baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.plot_text import (
    COLOURS,
    FAINT,
    INK,
    TIMES,
    hover,
    in_plot,
    light_axes,
    new_figure,
    plain_pictures,
    write_figure,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["accuracy_latency_figure", "plot_accuracy_latency"]

_STYLES = tuple(zip(COLOURS, "osD^vP", strict=True))  # the markers tell them apart in grey
_LINES = ("-", "--", ":", "-.")
_SMALLEST, _LARGEST = 6.0, 18.0  # points, of markers whose area is the size of a bundle
_NARROW = 6.0  # inches: below that the legend stands below, and the page says what was measured on


def plot_accuracy_latency(rows: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Draw what each method gains, and what it costs, and write it atomically.

    Args:
        rows, title: of `accuracy_latency_figure`.
        path: NAME.png.
    """
    write_figure(accuracy_latency_figure(rows, title), path, dpi=170)


@plain_pictures()
def accuracy_latency_figure(
    rows: Sequence[dict[str, Any]], title: str, width: float = 8.6
) -> Figure:
    """Each method or bundle a point, each baseline a line.

    Args:
        rows: of `vptkit.demo.report.report_rows`; adapters are points with the 95 % intervals of
            both figures, baselines are vertical lines, the first of them is the bare backbone. With
            "bytes" in every row the area of a point is the size; "style" is a number that is the same
            for a bundle in several pictures.
        title: what was measured on, and with.
        width: inches; below 6 the legend stands below the picture, which has no title.
    """
    bare = next((row["ms"]["p50"] for row in rows if row["kind"] == "baseline"), None)
    most = max((row.get("bytes") or 0 for row in rows), default=0)
    narrow = width < _NARROW
    figure = new_figure(width, 3.6 + 0.22 * len(rows) if narrow else 4.3)
    axes = figure.subplots()
    baselines = [row for row in rows if row["kind"] == "baseline"]
    for row, style in zip(baselines, _LINES, strict=False):
        axes.axvline(row["ms"]["p50"], color=INK, lw=1.3, ls=style, label=_words(row, bare))
    tuned = [row for row in rows if row["kind"] != "baseline" and row["test_top1"] is not None]
    for i, row in enumerate(tuned):
        share = (row.get("bytes") or 0) / most if most else None
        color, marker = _STYLES[row.get("style", i) % len(_STYLES)]
        _point(axes, row, bare, color, marker, share)
    _furnish(axes, rows, tuned, bare)
    own: dict[str, Any] = {"frameon": False, "fontsize": 9, "labelcolor": INK}
    if narrow:
        figure.legend(*_order(axes), loc="outside lower left", markerscale=0.6, **own)
        return figure
    axes.legend(
        *_order(axes), loc="center left", bbox_to_anchor=(1.01, 0.5), labelspacing=0.9, **own
    )
    figure.suptitle("What tuning gains, and what it costs", x=0.01, ha="left", fontweight="bold")
    text = "\n".join(in_plot(line, 400) for line in title.split("\n"))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8, color=FAINT)
    return figure


def _point(
    axes: Axes,
    row: dict[str, Any],
    bare: float | None,
    color: str,
    marker: str,
    size: float | None,
) -> None:
    """A method: its accuracy with Wilson's interval, its latency with that of the ratio.

    Args:
        axes: where.
        row: of `accuracy_latency_figure`.
        bare: latency of the bare backbone, if it was measured.
        color, marker: of the point.
        size: share of the largest bundle; None draws all alike.
    """
    x, y = row["ms"]["p50"], 100 * row["test_top1"]
    low, high = (100 * bound for bound in row["test_interval"])
    across = None
    if row["ratio_interval"] is not None and bare is not None:
        left, right = (bound * bare for bound in row["ratio_interval"])
        across = [[max(0.0, x - left)], [max(0.0, right - x)]]
    drawn = axes.errorbar(
        [x],
        [y],
        xerr=across,
        yerr=[[y - low], [high - y]],
        color=color,
        marker=marker,
        markersize=8 if size is None else max(_SMALLEST, _LARGEST * size**0.5),
        markeredgecolor="white",
        elinewidth=1.1,
        capsize=2.5,
        linestyle="none",
        label=_words(row, bare),
    )
    hover(drawn.lines[0], f"{row['name']}: {y:.1f} %, {x:.3g} ms")


def _words(row: dict[str, Any], bare: float | None) -> str:
    name = in_plot(row["name"]).replace(" (no adapter)", "")
    name = "bare backbone" if name == "backbone" else name
    name = "unfolded graph" if name == "unfolded" else name
    ms = f"{row['ms']['p50']:.2f} ms"
    ratio = ms if bare is None else f"{row['ms']['p50'] / bare:.2f}{TIMES}"
    if row["kind"] == "baseline":
        return f"{name}: {ms}, {ratio}"
    return f"{name}: {100 * row['test_top1']:.1f} %, {ratio}"


def _furnish(
    axes: Axes, rows: Sequence[dict[str, Any]], tuned: Sequence[dict[str, Any]], bare: float | None
) -> None:
    unit = bare or max(row["ms"]["p50"] for row in rows) or 1.0
    ratios = [row["ms"]["p50"] / unit for row in rows]
    if bare is not None:
        ratios += [bound for row in tuned for bound in row["ratio_interval"] or ()]
    margin = 0.06 * (max(ratios) - min(ratios)) + 0.01
    axes.set_xlim((min(ratios) - margin) * unit, (max(ratios) + margin) * unit)
    axes.set_xlabel("median latency of one image, ms", color=INK)
    axes.set_ylabel("test accuracy, %", color=INK)
    if bare:
        above = axes.secondary_xaxis("top", functions=(_times(1 / bare), _times(bare)))
        above.set_xlabel("÷ bare backbone", color=FAINT, fontsize=9)
        above.tick_params(colors=FAINT)
        above.spines["top"].set_color(FAINT)
    light_axes(axes, grid="y")


def _times(factor: float) -> Callable[[Any], Any]:
    return lambda values: values * factor


def _order(axes: Axes) -> tuple[list[Any], list[str]]:
    """The legend as one reads the picture: methods from the best one down, then the lines."""
    handles, labels = axes.get_legend_handles_labels()
    pairs = list(zip(handles, labels, strict=True))
    points = [pair for pair in pairs if " %, " in pair[1]]
    lines = [pair for pair in pairs if " %, " not in pair[1]]
    points.sort(key=lambda pair: -float(pair[1].rsplit(": ", 1)[1].split(" ")[0]))
    return [h for h, _ in points + lines], [label for _, label in points + lines]
