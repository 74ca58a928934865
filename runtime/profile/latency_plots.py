"""Latency as a distribution, and over the batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.plot_text import in_plot, new_figure, plain_pictures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Rows = Sequence[Mapping[str, Any]]

__all__ = ["batch_figure", "distribution_figure"]

# Okabe and Ito's colours; dashes tell them apart in grey
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("-", "--", "-.", ":")
_INK, _FAINT, _LINE = "#22262b", "#6b7078", "#e6e8eb"
_MOST = 12  # lines of a panel


@plain_pictures()
def distribution_figure(rows: Rows) -> Figure | None:
    """Share of calls that took at most so long, a panel a batch size and power mode.

    Args:
        rows: of a profile. Those without a distribution, of an older one, are drawn by their
            percentiles 50, 90 and 99.

    Returns:
        None where nothing was measured.
    """
    groups: dict[tuple[int, Any], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["batch"], row.get("power_mode")), []).append(row)
    if not groups:
        return None
    figure = new_figure(8.0, 2.9 * len(groups) + 0.3)
    panels = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
    for axes, ((batch, mode), members) in zip(panels, groups.items(), strict=True):
        longest = 0.0
        for i, row in enumerate(members[:_MOST]):
            percents, ms = zip(*_points(row), strict=True)
            # the slowest one call of thousands would squeeze all the rest
            longest = max(longest, *(x for p, x in zip(percents, ms, strict=True) if p <= 99))
            axes.plot(ms, percents, **_style(i), label=in_plot(_name(row, members), 40))
        axes.set_xlim(left=0, right=1.05 * longest or 1)
        axes.set_ylim(0, 100)
        axes.set_ylabel("calls, %", color=_FAINT)
        axes.set_title(
            in_plot(f"batch {batch}" + (f", {mode}" if mode else "")),
            loc="left",
            fontsize=10,
            color=_FAINT,
        )
        _furnish(axes)
    panels[-1].set_xlabel("took at most so many milliseconds", color=_FAINT)
    return figure


@plain_pictures()
def batch_figure(rows: Rows) -> Figure | None:
    """Images a second over the batch size, from the median call.

    Returns:
        None unless something was measured at two batch sizes.
    """
    lines: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        lines.setdefault((row["name"], row["backend"], row.get("power_mode")), []).append(row)
    curves = [line for line in lines.values() if len({row["batch"] for row in line}) > 1]
    if not curves:
        return None
    figure = new_figure(8.0, 3.6)
    axes = figure.subplots()
    for i, line in enumerate(curves[:_MOST]):
        line.sort(key=lambda row: int(row["batch"]))
        known = [row for row in line if row["ms"]["p50"] > 0]
        sizes = [row["batch"] for row in known]
        rate = [1000 * row["batch"] / row["ms"]["p50"] for row in known]
        axes.plot(sizes, rate, **_style(i), marker="o", label=in_plot(_name(line[0], rows), 40))
    sizes = sorted({row["batch"] for line in curves for row in line})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("images in a batch", color=_FAINT)
    axes.set_ylabel("images a second", color=_FAINT)
    _furnish(axes)
    return figure


def _points(row: Mapping[str, Any]) -> list[list[float]]:
    """[percent, ms], in ascending order."""
    few = [[percent, row["ms"][f"p{percent}"]] for percent in (50, 90, 99)]
    return sorted(row.get("distribution") or few)


def _name(row: Mapping[str, Any], others: Rows) -> str:
    """Its name, with what tells it apart from others of that name."""
    keys = ("backend", "precision")
    differing = [key for key in keys if len({other.get(key) for other in others}) > 1]
    return ", ".join(str(row.get(key)) for key in ("name", *differing))


def _style(i: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[i % len(_COLOURS)],
        "linestyle": _DASHES[i % len(_DASHES)],
        "linewidth": 1.6,
        "drawstyle": "default",
    }


def _furnish(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=9, labelcolor=_INK, loc="lower right")
    axes.grid(color=_LINE, linewidth=0.7)
    axes.tick_params(colors=_FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(_FAINT)
