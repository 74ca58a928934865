"""Latency as a distribution, and over the batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.plot_text import (
    FAINT,
    INK,
    PAGE,
    in_plot,
    light_axes,
    line_style,
    new_figure,
    plain_pictures,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    Rows = Sequence[Mapping[str, Any]]

__all__ = ["batch_figure", "distribution_figure"]

_MOST = 12  # lines of a picture


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
    names = list(dict.fromkeys(_name(row, rows) for row in rows))[:_MOST]
    figure = new_figure(PAGE, 2.2 * len(groups) + 0.2 * len(names) + 0.3)
    panels = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
    for axes, ((batch, mode), members) in zip(panels, groups.items(), strict=True):
        longest = 0.0
        for row in members:
            if (name := _name(row, rows)) not in names:
                continue
            percents, ms = zip(*_points(row), strict=True)
            # the slowest one call of thousands would squeeze all the rest
            longest = max(longest, *(x for p, x in zip(percents, ms, strict=True) if p <= 99))
            axes.plot(ms, percents, **line_style(names.index(name)), label=in_plot(name, 60))
        axes.set_xlim(left=0, right=1.05 * longest or 1)
        axes.set_ylim(0, 100)
        axes.set_ylabel("calls, %", color=FAINT)
        title = f"batch {batch}" + (f", {mode}" if mode else "")
        axes.set_title(in_plot(title, 60), loc="left", fontsize=10, color=FAINT)
        light_axes(axes)
    panels[-1].set_xlabel("took at most so many milliseconds", color=FAINT)
    _name_lines(figure)
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
    curves = [line for line in lines.values() if len({row["batch"] for row in line}) > 1][:_MOST]
    if not curves:
        return None
    figure = new_figure(PAGE, 2.7 + 0.2 * len(curves))
    axes = figure.subplots()
    for i, line in enumerate(curves):
        line.sort(key=lambda row: int(row["batch"]))
        known = [row for row in line if row["ms"]["p50"] > 0]
        sizes = [row["batch"] for row in known]
        rate = [1000 * row["batch"] / row["ms"]["p50"] for row in known]
        mode = line[0].get("power_mode")
        name = _name(line[0], rows) + (f", {mode}" if mode else "")
        axes.plot(sizes, rate, **line_style(i), marker="o", label=in_plot(name, 60))
    sizes = sorted({row["batch"] for line in curves for row in line})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("images in a batch", color=FAINT)
    axes.set_ylabel("images a second", color=FAINT)
    light_axes(axes)
    _name_lines(figure)
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


def _name_lines(figure: Figure) -> None:
    """A legend below, each name once."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(
        list(found.values()),
        list(found),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        loc="outside lower left",
    )
