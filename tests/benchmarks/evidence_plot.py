"""The records of `evidence.py` as pictures: accuracy by method; ID and OOD along the line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .evidence_cells import RECIPES, SETS
from .evidence_records import methods_in

if TYPE_CHECKING:
    from pathlib import Path

    from .evidence_records import Records

_NAMES = list(SETS)


def plot(records: Records, path: Path) -> None:
    """Test accuracy of each method: a row of panels a backbone, a panel an amount of data.

    vptkit's recipe is filled; the papers', a little below it, is hollow.
    """
    from matplotlib.lines import Line2D

    pairs = records.tables()
    backbones = sorted({backbone for backbone, _ in pairs}, reverse=True)
    amounts = sorted({shots for _, shots in pairs}, key=lambda shots: shots or np.inf)
    methods = methods_in(records.rows)
    figure, panels = _figure(len(backbones), len(amounts), 4.4, 1.2 + 0.42 * len(methods))
    for backbone, line in zip(backbones, panels, strict=True):
        for shots, panel in zip(amounts, line, strict=True):
            if (backbone, shots) not in pairs:
                panel.set_xticks([])
                panel.spines[:].set_visible(False)
                continue  # the names of the methods stay
            _panel(panel, records, backbone, shots, methods)
            panel.set_title(f"{backbone}, {f'{shots} images a class' if shots else 'all images'}")
    panels[0][0].set_yticks(range(len(methods)), methods)
    panels[0][0].set_ylim(len(methods) - 0.5, -0.5)
    figure.supxlabel(
        "test top-1 (%); bars: standard deviation of the seeds, where there are several"
    )
    marks = [Line2D([], [], marker="o", ls="", color=f"C{i}") for i in range(len(SETS))]
    marks += [Line2D([], [], marker="o", ls="", color="0.3", mfc=fill) for fill in ("0.3", "w")]
    names = [*_NAMES, "vptkit's recipe", "the papers'"]
    figure.legend(marks, names, loc="outside upper center", ncols=len(names), frameon=False)
    figure.savefig(path)


def _panel(panel: Any, records: Records, backbone: str, shots: int, methods: list[str]) -> None:
    """One point for each (set, method, recipe)."""
    for number, data in enumerate(_NAMES):
        for recipe in RECIPES:
            found = [
                (place, 100 * np.array([row["test_top1"] for row in rows]))
                for place, method in enumerate(methods)
                if (rows := records.of(recipe, backbone, shots, method, data))
                and rows[0]["recipe"] == recipe
            ]
            if not found:
                continue
            below = 0.2 * (number - 1.5) + 0.07 * (recipe == "papers")
            places = [place + below for place, _ in found]
            errors = [np.std(v, ddof=1) if len(v) > 1 else 0.0 for _, v in found]
            look = {"mfc": "w"} if recipe == "papers" else {}
            style = {"fmt": "o", "ms": 4, "lw": 1, "color": f"C{number}", **look}
            panel.errorbar([np.mean(v) for _, v in found], places, xerr=errors, **style)
    for place in range(1, len(methods), 2):
        panel.axhspan(place - 0.5, place + 0.5, color="0.95", lw=0, zorder=0)
    panel.grid(axis="x", alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def plot_lines(records: Records, path: Path) -> None:
    """OOD over test along the line from start (square) to end (dot): mean of the seeds, by method.

    Raises:
        ValueError: no record has a line with both.
    """
    rows = [r for r in records.rows if r.get("line") and r["ood_top1"] is not None]
    if not rows:
        raise ValueError("no record has a line on a set with ood: train with --lines")
    places = sorted({(r["backbone"], r["shots"], r["data"], r["recipe"]) for r in rows})
    columns = min(3, len(places))
    lines = -(-len(places) // columns)
    figure, panels = _figure(lines, columns, 4.6, 3.8, share=False)
    looks = {m: (f"C{i % 10}", "--" if i > 9 else "-") for i, m in enumerate(methods_in(rows))}
    for panel, place in zip(panels.flat, places, strict=False):
        for method, (colour, dashes) in looks.items():
            found = [
                list(r["line"].values())
                for r in rows
                if (r["backbone"], r["shots"], r["data"], r["recipe"], r["method"])
                == (*place, method)
            ]
            if found:
                mean = 100 * np.mean([[point[2:] for point in line] for line in found], axis=0)
                style = {"color": colour, "lw": 1.5, "ls": dashes, "label": method}
                panel.plot(mean[:, 0], mean[:, 1], **style)
                panel.plot(*mean[0], "s", color=colour, ms=5)
                panel.plot(*mean[-1], "o", color=colour, ms=5)
        backbone, shots, data, recipe = place
        panel.set_title(f"{backbone}, {data}, {shots or 'all'}, {recipe}", fontsize=10)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels.flat[len(places) :]:
        panel.set_visible(False)
    handles = {line.get_label(): line for panel in panels.flat for line in panel.get_lines()}
    named = [(handles[method], method) for method in looks]
    figure.legend(*zip(*named, strict=True), loc="outside right upper", frameon=False)
    figure.supxlabel("test top-1 (%); square: start (α = 0), dot: end (α = 1)")
    figure.supylabel("OOD top-1 (%)")
    figure.savefig(path)


def _figure(lines: int, columns: int, width: float, height: float, *, share: bool = True) -> Any:
    """A figure and its panels, [lines, columns]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = width * columns + 1, height * lines + 0.6
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(lines, columns, sharey=share, squeeze=False)
