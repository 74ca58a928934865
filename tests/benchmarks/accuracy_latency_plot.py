"""The rows of `accuracy_latency` as one picture: accuracy against processor time, a marker a bundle.

A network whose accuracy is not known has its times on a line of their own below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.plot_text import (
    COLOURS,
    FAINT,
    INK,
    PAGE,
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

_MARKERS = {"plain": "o", "merged": "s", "int8": "^", "merged + int8": "D"}
_TICKS = (2, 5, 10, 20, 50, 100, 200, 500)  # ms


@plain_pictures()
def plot(circumstances: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw; the rows are those of `accuracy_latency`."""
    figure = new_figure(PAGE, 4.4)
    models = list(dict.fromkeys(row["model"] for row in rows))
    judged = [model for model in models if any(r["sets"] for r in rows if r["model"] == model)]
    panel, below = figure.subplots(2, 1, sharex=True, height_ratios=[5, 1])
    for number, model in enumerate(models):
        own = [row for row in rows if row["model"] == model]
        _draw(panel if model in judged else below, own, COLOURS[number], known=model in judged)
    _axes(panel, below, rows)
    for variant, marker in _MARKERS.items():
        panel.plot([], [], marker, color=FAINT, label=variant, markersize=6)
    look = {"frameon": False, "fontsize": 9, "labelcolor": INK, "columnspacing": 1.2}
    panel.legend(loc="lower left", bbox_to_anchor=(-0.03, 1), ncols=4, handletextpad=0.2, **look)
    figure.suptitle(_title(circumstances, rows), x=0.01, ha="left", fontsize=8, color=FAINT)
    write_figure(figure, path, dpi=200)


def _draw(panel: Any, rows: Sequence[Mapping[str, Any]], colour: str, *, known: bool) -> None:
    """The variants of one network, joined in the order of their time."""
    xs = [row["processor_ms"][1] for row in rows]
    shares = [_accuracy(row) if known else (0.0, 0.0, 0.0) for row in rows]
    middles = [middle for _, middle, _ in shares]
    order = np.argsort(xs)
    line = {"color": colour, "linewidth": 1, "alpha": 0.4}
    panel.plot([xs[i] for i in order], [middles[i] for i in order], **line)
    for row, x, (low, middle, high) in zip(rows, xs, shares, strict=True):
        spread = [[middle - low], [high - middle]]
        look = {"marker": _MARKERS[row["variant"]], "color": colour, "markersize": 7}
        panel.errorbar([x], [middle], yerr=spread, elinewidth=0.8, alpha=0.9, **look)
    name = {"color": colour, "fontsize": 10}
    if known:
        last = int(np.argmax(xs))
        place = {"textcoords": "offset points", "xytext": (8, -4)}
        panel.annotate(rows[0]["model"], (xs[last], middles[last]), **place, **name)
    else:
        words = f"{rows[0]['model']}: time alone, no pretrained weights"
        panel.text(0.02, 0.74, words, transform=panel.transAxes, **name)


def _accuracy(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """Mean over the sets in percent, and a 95 % interval of it: each set's images are drawn anew."""
    shares = [one["right"] / one["count"] for one in row["sets"]]
    spread = sum(p * (1 - p) / one["count"] for p, one in zip(shares, row["sets"], strict=True))
    middle, wide = 100 * float(np.mean(shares)), 196 * float(np.sqrt(spread)) / len(shares)
    return middle - wide, middle, middle + wide


def _axes(panel: Any, below: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    times = [row["processor_ms"][1] for row in rows]
    panel.set_xscale("log")
    panel.set_xlim(0.75 * min(times), 1.7 * max(times))
    shown = [tick for tick in _TICKS if panel.get_xlim()[0] < tick < panel.get_xlim()[1]]
    below.set_xticks(shown, [str(tick) for tick in shown])
    below.minorticks_off()
    below.set_yticks([])
    below.set_ylim(-1, 2)
    for one in (panel, below):
        light_axes(one)
        one.tick_params(labelsize=9)
    below.set_xlabel("processor time an image, ms", color=INK, fontsize=10)
    panel.set_ylabel("test accuracy, %", color=INK, fontsize=10)


def _title(circumstances: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """What was measured, on what."""
    sets = list(dict.fromkeys(one["data"] for row in rows for one in row["sets"]))
    words = (
        f"linear probes on {' and '.join(sets)}",
        f"{circumstances['threads']} thread{'s' * (circumstances['threads'] > 1)}",
        f"{circumstances['rounds']} rounds",
        *(f"{name} {of}" for name, of in circumstances["versions"].items()),
    )
    return in_plot(", ".join(words), 200)
