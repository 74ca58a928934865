"""Burstiness as a picture, after the BPT paper's first figure: histograms on a log axis, and fits.

One row each for the first, the middle and the last block; below, one line for each quantity over
all blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vptkit.atomic_files import atomic_file
from vptkit.plot_text import in_plot, new_figure, plain_pictures
from vptkit.shown_text import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from .block_burstiness import BlockTails, Quantity
    from .heavy_tails import Tails

__all__ = ["plot_burstiness"]

_TITLES = {
    "weights": r"$W_q W_k^\top$",
    "tokens": r"$X$",
    "products": r"$W_q W_k^\top X^\top$",
    "whitened": r"whitened: $W\, W_q W_k^\top X^\top$",
}
_BINS = 100  # as the authors' notebook
_MARGIN = 1.01  # a tally's bin is half a per cent wide: the largest number's lies inside


@plain_pictures()
def plot_burstiness(blocks: Sequence[BlockTails], title: str, path: Path) -> None:
    """Draw and write atomically.

    Args:
        blocks: of `vptkit.tune.burstiness.block_burstiness.measure`.
        title: of the figure: backbone and images.
        path: of the PNG; replaced if it exists.
    """
    drawn_blocks = [blocks[i] for i in sorted({0, len(blocks) // 2, len(blocks) - 1})]
    colors = {name: f"C{number}" for number, name in enumerate(blocks[0].prompts)}
    columns = len(_TITLES) + bool(colors)
    figure = new_figure(3.1 * columns, 2.2 * len(drawn_blocks) + 3.1, dpi=80)
    parts = figure.add_gridspec(2, 1, height_ratios=[2.2 * len(drawn_blocks), 2.8])
    top, bottom = figure.add_subfigure(parts[0]), figure.add_subfigure(parts[1])
    grid = top.subplots(len(drawn_blocks), columns, squeeze=False)
    for row, block in zip(grid, drawn_blocks, strict=True):
        for axes, name in zip(row, _TITLES, strict=False):
            _draw(axes, block.quantities[name])
        if colors:
            _draw_prompts(row[-1], block, colors)
        row[0].set_ylabel(f"block {block.block + 1}\ncount")
    headings = [*_TITLES.values(), *(["learned prompts"] if colors else [])]
    for axes, heading in zip(grid[0], headings, strict=True):
        axes.set_title(heading, fontsize=11)
    first = (grid[0][0], *grid[0][len(_TITLES) :])
    drawn = [handle for axes in first for handle in axes.get_legend_handles_labels()[0]]
    top.legend(handles=drawn, loc="outside lower center", ncols=6, fontsize=9, frameon=False)
    panels = bottom.subplots(1, 4)
    _draw_statistics(panels, blocks)
    bottom.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(in_plot(title, 200), fontsize=12, fontweight="bold")
    with atomic_file(path) as part:
        figure.savefig(part, format="png")


def _draw(axes: Axes, quantity: Quantity) -> None:
    tails = quantity.tally.tails()
    reach = _MARGIN * tails.max_abs or 1.0
    edges = np.linspace(-reach, reach, _BINS + 1)
    axes.stairs(quantity.tally.histogram(edges), edges, fill=True, color="#a9bcd0")
    places = np.linspace(-reach, reach, 801)
    for fit, label, color in (
        (tails.gaussian, "Gaussian", "#8a8f98"),
        (tails.laplacian, "Laplacian", "#d98c21"),
        (tails.generalised, "exponent e, fitted", "#b3203c"),
    ):
        if fit.scale > 0:
            counts = fit.density(places) * tails.count * (edges[1] - edges[0])
            axes.plot(places, counts, color=color, linewidth=1.2, label=label)
    _finish(axes, tails)


def _draw_prompts(axes: Axes, block: BlockTails, colors: Mapping[str, str]) -> None:
    """Densities over |x| / rms: prompts of different methods differ in size by orders."""
    for name, quantity in block.prompts.items():
        tails = quantity.tally.tails()
        if tails.rms > 0:
            reach = _MARGIN * tails.max_abs
            edges = np.linspace(-reach, reach, _BINS + 1)
            counts = quantity.tally.histogram(edges)
            axes.stairs(
                counts, edges / tails.rms, color=colors[name], label=in_plot(_short(shown(name)))
            )
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.minorticks_off()
    axes.set_xlabel("value / rms", fontsize=8)
    axes.tick_params(labelsize=7)


def _short(name: str) -> str:
    """Both ends of a long name: what tells adapters apart may be at either."""
    return name if len(name) <= 26 else f"{name[:12]}…{name[-13:]}"


def _finish(axes: Axes, tails: Tails) -> None:
    axes.set_yscale("log")
    axes.set_ylim(0.7, max(tails.count, 2))
    axes.minorticks_off()  # they cost most of the drawing
    axes.tick_params(labelsize=7)
    text = (
        f"e {tails.generalised.exponent:.2f}\nkurtosis {tails.excess_kurtosis:.3g}\n"
        f"max/rms {tails.max_over_rms:.3g}"
    )
    axes.text(0.03, 0.96, text, transform=axes.transAxes, va="top", fontsize=7)


def _draw_statistics(panels: Sequence[Axes], blocks: Sequence[BlockTails]) -> None:
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    numbers = [block.block + 1 for block in blocks]
    tails = {name: [b.quantities[name].tally.tails() for b in blocks] for name in _TITLES}
    labels = {**_TITLES, "whitened": "whitened"}
    for name, values in tails.items():
        for axes, drawn in (
            (panels[0], [t.excess_kurtosis for t in values]),
            (panels[1], [t.max_over_rms for t in values]),
            (panels[2], [t.generalised.exponent for t in values]),
        ):
            axes.plot(numbers, drawn, marker="o", markersize=3, label=labels[name])
    panels[0].set_yscale("symlog", linthresh=1)
    panels[1].set_yscale("log")
    panels[1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panels[1].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panels[2].axhline(1, color="#8a8f98", linewidth=0.8, linestyle="--")
    panels[3].plot(numbers, [b.sigma.rank for b in blocks], color="#444", marker="o", ms=3)
    panels[3].set_ylim(0, len(blocks[0].sigma.matrix) * 1.03)
    for axes, text in zip(
        panels,
        ("excess kurtosis", "max / rms", "exponent e (below 1: hyper-Laplacian)", "rank of Σ"),
        strict=True,
    ):
        axes.set_title(text, fontsize=10)
        axes.set_xlabel("block", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.minorticks_off()
        axes.grid(alpha=0.25)
