"""The demo's picture: test accuracy over latency, beside the bare backbone and the unfolded graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_file
from vptkit.plot_text import in_plot, new_figure, plain_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

__all__ = ["plot_accuracy_latency"]

# Okabe and Ito's colours, told apart by the colour-blind; the markers tell them apart in grey
_STYLES = (("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "D"), ("#cc79a7", "^"), ("#e69f00", "v"))
_LINES = ("-", "--", ":", "-.")
_INK, _FAINT = "#22262b", "#6b7078"
_TIMES = "\N{MULTIPLICATION SIGN}"


@plain_pictures()
def plot_accuracy_latency(rows: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Draw what each method gains, and what it costs.

    Args:
        rows: of `vptkit.demo.report.report_rows`; adapters are points with the 95 % intervals of
            both figures, baselines are vertical lines.
        title: what was measured on, and with.
        path: NAME.png.
    """
    bare = next(row for row in rows if row["kind"] == "baseline")["ms"]["p50"]
    figure = new_figure(8.6, 4.3)
    axes = figure.subplots()
    baselines = [row for row in rows if row["kind"] == "baseline"]
    for row, style in zip(baselines, _LINES, strict=False):
        axes.axvline(row["ms"]["p50"], color=_INK, lw=1.3, ls=style, label=_words(row, bare))
    tuned = [row for row in rows if row["kind"] != "baseline" and row["test_top1"] is not None]
    for i, row in enumerate(tuned):
        _point(axes, row, bare, *_STYLES[i % len(_STYLES)])
    _furnish(axes, rows, tuned, bare)
    figure.suptitle("What tuning gains, and what it costs", x=0.01, ha="left", fontweight="bold")
    text = "\n".join(in_plot(line, 400) for line in title.split("\n"))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8, color=_FAINT)
    with atomic_file(path) as part:
        figure.savefig(part, format="png", dpi=170, pil_kwargs={"optimize": True})


def _point(axes: Axes, row: dict[str, Any], bare: float, color: str, marker: str) -> None:
    """A method: its accuracy with Wilson's interval, its latency with that of the ratio."""
    x, y = row["ms"]["p50"], 100 * row["test_top1"]
    low, high = (100 * bound for bound in row["test_interval"])
    across = None
    if row["ratio_interval"] is not None:
        left, right = (bound * bare for bound in row["ratio_interval"])
        across = [[max(0.0, x - left)], [max(0.0, right - x)]]
    axes.errorbar(
        [x],
        [y],
        xerr=across,
        yerr=[[y - low], [high - y]],
        color=color,
        marker=marker,
        markersize=8,
        markeredgecolor="white",
        elinewidth=1.1,
        capsize=2.5,
        linestyle="none",
        label=_words(row, bare),
    )


def _words(row: dict[str, Any], bare: float) -> str:
    name = in_plot(row["name"]).replace(" (no adapter)", "")
    name = "bare backbone" if name == "backbone" else name
    name = "unfolded graph" if name == "unfolded" else name
    ratio = f"{row['ms']['p50'] / bare:.2f}{_TIMES}"
    if row["kind"] == "baseline":
        return f"{name}: {row['ms']['p50']:.2f} ms, {ratio}"
    return f"{name}: {100 * row['test_top1']:.1f} %, {ratio}"


def _furnish(
    axes: Axes, rows: Sequence[dict[str, Any]], tuned: Sequence[dict[str, Any]], bare: float
) -> None:
    ratios = [row["ms"]["p50"] / bare for row in rows]
    ratios += [bound for row in tuned for bound in row["ratio_interval"] or ()]
    margin = 0.06 * (max(ratios) - min(ratios)) + 0.01
    axes.set_xlim((min(ratios) - margin) * bare, (max(ratios) + margin) * bare)
    axes.set_xlabel("median latency of one image, ms", color=_INK)
    axes.set_ylabel("test accuracy, %", color=_INK)
    above = axes.secondary_xaxis("top", functions=(_times(1 / bare), _times(bare)))
    above.set_xlabel("÷ bare backbone", color=_FAINT, fontsize=9)
    for axis in (axes, above):
        axis.tick_params(colors=_FAINT)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["right"]].set_visible(False)
    axes.spines[["bottom", "left", "top"]].set_color(_FAINT)
    axes.legend(
        *_order(axes),
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        fontsize=9,
        labelcolor=_INK,
        labelspacing=0.9,
    )


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
