"""A sweep as a picture: validation log-loss against each swept setting."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_file
from vptkit.plot_text import in_plot, new_figure, plain_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

__all__ = ["plot_sweep"]

_INK, _FAINT, _BLUE, _RED = "#22262b", "#6b7078", "#2a6f97", "#c1440e"
_ACROSS = 3  # panels in a row


@plain_pictures()
def plot_sweep(document: Mapping[str, Any], path: Path) -> None:
    """One panel for each setting, one point for each trial that reported anything.

    Args:
        document: of `vptkit.tune.sweep.run_sweep.sweep`.
        path: of the PNG; replaced if it exists.
    """
    rows = [row for row in document["leaderboard"] if row["val_loss"] is not None]
    names = list(document["space"])
    across = min(len(names), _ACROSS)
    down = math.ceil(len(names) / across)
    figure = new_figure(3.6 * across + 0.6, 3.0 * down + 0.9, dpi=130)
    panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    best = document["best"]["trial"] if document["best"] else None
    for number, (axes, name) in enumerate(zip(panels, names, strict=False)):
        _draw(axes, name, document["space"][name], rows, best)
        if number % across == 0:
            axes.set_ylabel("log-loss on val, less is better", color=_INK)
    for axes in panels[len(names) :]:
        axes.remove()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper right",
        ncols=len(labels),
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
    )
    with atomic_file(path) as part:
        figure.savefig(part, format="png")


def _draw(
    axes: Axes, name: str, space: Any, rows: Sequence[Mapping[str, Any]], best: int | None
) -> None:
    values = [row["settings"][name] for row in rows]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if numeric:
        places = [float(value) for value in values]
        if _logarithmic(space):
            axes.set_xscale("log")
        if isinstance(space, list):
            axes.set_xticks(sorted(set(space)), [f"{value:g}" for value in sorted(set(space))])
            axes.set_xticks([], minor=True)
    else:
        known = list(dict.fromkeys(space if isinstance(space, list) else values))
        places = [float(known.index(value)) for value in values]
        axes.set_xticks(range(len(known)), [in_plot(value, 32) for value in known])
        axes.set_xlim(-0.5, len(known) - 0.5)
    styles: tuple[tuple[str, Callable[[Mapping[str, Any]], bool], dict[str, Any]], ...] = (
        ("finished", lambda row: row["state"] == "finished", {"color": _BLUE, "alpha": 0.75}),
        (
            "pruned or not over",
            lambda row: row["state"] != "finished",
            {"facecolors": "none", "edgecolors": _FAINT},
        ),
        ("chosen", lambda row: row["trial"] == best, {"color": _RED, "marker": "D"}),
    )
    for label, held, style in styles:
        points = [(x, r["val_loss"]) for x, r in zip(places, rows, strict=True) if held(r)]
        if points:
            across, up = zip(*points, strict=True)
            axes.scatter(across, up, s=34, label=label, zorder=2, **style)
    axes.set_xlabel(in_plot(name), color=_INK)
    axes.grid(alpha=0.25)
    axes.tick_params(which="both", colors=_FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(_FAINT)


def _logarithmic(space: Any) -> bool:
    """As the range says; a list spreads over the logarithm if it spans a factor of ten."""
    if isinstance(space, dict):
        return bool(space["log"])
    return bool(min(space) > 0 and max(space) >= 10 * min(space))
