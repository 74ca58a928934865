"""The rows of `growth_curves` as one picture: latency above, memory below, a panel a curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.plot_text import (
    BLUE,
    FAINT,
    GREY,
    INK,
    ORANGE,
    TIMES,
    in_plot,
    light_axes,
    new_figure,
    plain_pictures,
    write_figure,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["plot"]

_CURVES = {
    "prompts": "deep prompts",
    "adapters": "adapters in a bank",
    "tokens": "image tokens",
    "batch": "images a call",
}
_LOOKS = {
    "folded": {"color": BLUE, "marker": "o"},
    "bank": {"color": BLUE, "marker": "o"},
    "prompts as tokens": {"color": ORANGE, "marker": "s", "linestyle": "--"},
}
_PROPORTIONAL = ("tokens", "batch")  # curves where a thin line says what growing alike would be


@plain_pictures()
def plot(circumstances: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Ratios to each curve's first point: median, and bars from quartile to quartile."""
    units = {"processor_ms": "processor time", "peak_mib": "peak memory"}
    units = {unit: name for unit, name in units.items() if unit in rows[-1]}
    figure = new_figure(9.0, 0.5 + 2.25 * len(units))
    panels = figure.subplots(len(units), len(_CURVES), squeeze=False)
    for line, (unit, name) in zip(panels, units.items(), strict=True):
        for panel, curve in zip(line, _CURVES, strict=True):
            _draw(panel, [row for row in rows if row["curve"] == curve], curve, unit)
        line[0].set_ylabel(f"{name}, {TIMES} first point", color=INK)
    for panel, label in zip(panels[-1], _CURVES.values(), strict=True):
        panel.set_xlabel(label, color=INK, fontsize=9)
    figure.suptitle(_title(circumstances), x=0.01, ha="left", fontsize=9, color=FAINT)
    write_figure(figure, path, dpi=112)


def _draw(panel: Any, rows: Sequence[Mapping[str, Any]], curve: str, unit: str) -> None:
    xs = sorted({row["x"] for row in rows})
    if curve in _PROPORTIONAL and unit.endswith("ms"):
        panel.plot(xs, np.divide(xs, xs[0]), color=GREY, linewidth=1, label="in proportion")
    highest = 0.0
    for graph in dict.fromkeys(row["graph"] for row in rows):
        own = [row for row in rows if row["graph"] == graph]
        low, middle, high = np.transpose([row[f"{unit}_ratio"] for row in own])
        spread = middle - low, high - middle
        style = {"linewidth": 1.6, "markersize": 4, "capsize": 2, **_LOOKS[graph]}
        panel.errorbar([row["x"] for row in own], middle, yerr=spread, label=graph, **style)
        highest = max(highest, *high)
    panel.set_ylim(0, max(2.0, 1.12 * highest))
    panel.set_xlim(0, 1.06 * xs[-1])
    panel.set_xticks(_ticks(xs))
    panel.locator_params(axis="y", nbins=5)
    light_axes(panel)
    panel.tick_params(labelsize=8)
    panel.legend(frameon=False, fontsize=8, labelcolor=INK, loc="best")


def _ticks(xs: Sequence[int]) -> list[int]:
    """The points, but for those that would stand upon the one before."""
    kept: list[int] = []
    for x in xs:
        if not kept or x - kept[-1] >= 0.12 * xs[-1]:
            kept.append(x)
    return kept


def _title(circumstances: Mapping[str, Any]) -> str:
    """What was measured, on what."""
    versions = ", ".join(f"{name} {of}" for name, of in circumstances["versions"].items())
    words = (
        circumstances["model"],
        f"{circumstances['rounds']} rounds",
        f"{circumstances['threads']} thread{'s' * (circumstances['threads'] > 1)}",
        f"load {' to '.join(map(str, dict.fromkeys(circumstances['load'])))}",
        versions,
    )
    return in_plot(", ".join(words), 200)
