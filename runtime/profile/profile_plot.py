"""A profile as a picture: one bar for each candidate, one panel for each power mode and batch size.

Where energy was measured, it is set against latency below.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from vptkit.plot_text import (
    BLUE,
    FAINT,
    GREY,
    INK,
    TIMES,
    in_plot,
    light_axes,
    new_figure,
    plain_pictures,
    write_figure,
)
from vptkit.runtime.backends.selection import on_nvidia

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_profile", "profile_figure"]

_COLORS = {"adapter": BLUE, "baseline": GREY}
_MARKERS = "osD^vP*X"
_NARROW = 6.0  # inches: below that names stand above the bars, and a page says what was measured on


def plot_profile(document: dict[str, Any], path: Path) -> None:
    """Draw a profile (`vptkit.runtime.profile.benchmark.profile`) and write it atomically.

    Raises:
        OutputError: another suffix than PLOT_SUFFIXES, or the file cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    write_figure(profile_figure(document), path)


@plain_pictures()
def profile_figure(document: dict[str, Any], width: float = 9.0) -> Figure:
    """The picture of `plot_profile`.

    Args:
        document: a profile.
        width: inches; a picture below 6 has neither title nor circumstances.
    """
    narrow = width < _NARROW
    groups = _groups(document["rows"])
    paid: dict[int, list[dict[str, Any]]] = {}
    for row in document["rows"]:
        if _joules(row) is not None:
            paid.setdefault(row["batch"], []).append(row)
    # Inches: every bar has the same height, whatever the number of panels.
    bar = 0.6 if narrow else 0.42
    heights = [bar * len(group) + 0.75 for group in groups.values()] + [3.4] * len(paid)
    figure = new_figure(width, sum(heights) + (0.0 if narrow else 0.75))
    panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, ((batch, mode), group) in zip(panels, groups.items(), strict=False):
        # One scale for all modes of a batch size
        longest = max(_longest(rows) for (b, _), rows in groups.items() if b == batch)
        title = in_plot(f"batch {batch}" + (f", power mode {mode}" if mode else ""))
        _draw(panel, title, group, longest, narrow=narrow)
    panels[len(groups) - 1].set_xlabel(
        "milliseconds a call: bar median, whisker 90th percentile", color=INK
    )
    for panel, (batch, rows) in zip(panels[len(groups) :], paid.items(), strict=True):
        _draw_energy(panel, batch, rows)
    if narrow:
        return figure
    title = "Latency and energy" if paid else "Latency of one call"
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color=INK)
    figure.supxlabel(_circumstances(document), x=0.01, ha="left", fontsize=8, color=FAINT)
    return figure


def _groups(
    rows: Sequence[dict[str, Any]],
) -> dict[tuple[int, str | None], list[dict[str, Any]]]:
    """(batch, power mode) → its rows; modes of one batch size stand together."""
    groups: dict[tuple[int, str | None], list[dict[str, Any]]] = {}
    for batch in dict.fromkeys(row["batch"] for row in rows):
        for row in rows:
            if row["batch"] == batch:
                groups.setdefault((batch, row.get("power_mode")), []).append(row)
    return groups


def _longest(rows: Sequence[dict[str, Any]]) -> float:
    return float(max(max(row["ms"]["p50"], row["ms"]["p90"]) for row in rows))


def _draw(
    axes: Axes, title: str, rows: Sequence[dict[str, Any]], longest: float, *, narrow: bool
) -> None:
    """A bar a row; the whisker ends at the 90th percentile.

    Args:
        axes: where.
        title: of the panel.
        rows: of one batch size and power mode.
        longest: milliseconds, of all panels that share the scale.
        narrow: names stand above the bars.
    """
    if len(rows) > 1:
        reference = next(row for row in rows if row["ratio"] is None)
        axes.axvline(reference["ms"]["p50"], color=INK, linewidth=0.8, linestyle=":")
    for y, row in enumerate(rows):
        p50, p90 = row["ms"]["p50"], row["ms"]["p90"]
        axes.barh(y, p50, height=0.4 if narrow else 0.62, color=_COLORS[row["kind"]])
        axes.plot([p50, p90], [y, y], color=INK, linewidth=1.2)
        axes.plot([p90, p90], [y - 0.14, y + 0.14], color=INK, linewidth=1.2)
        axes.text(
            max(p50, p90) + 0.012 * longest, y, _label(row), va="center", fontsize=9, color=INK
        )
    names = [_short(row["name"]) for row in rows]
    for y, name in enumerate(names if narrow else []):
        axes.annotate(
            name, (0, y - 0.24), (1, 0), textcoords="offset points", fontsize=9, color=INK
        )
    axes.set_yticks(range(len(rows)), [""] * len(rows) if narrow else names)
    axes.set_ylim(len(rows) - 0.45, -0.75 if narrow else -0.55)  # the first row at the top
    axes.set_xlim(0, (2.1 if narrow else 1.62) * longest)  # room for the labels
    axes.set_title(title, loc="left", fontsize=10, color=FAINT)
    light_axes(axes, grid=None)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_visible(False)


def _draw_energy(axes: Axes, batch: int, rows: Sequence[dict[str, Any]]) -> None:
    """Each candidate a line from power mode to power mode, or a point."""
    names = list(dict.fromkeys(row["name"] for row in rows))
    for name, marker in zip(names, itertools.cycle(_MARKERS), strict=False):
        line = sorted((row for row in rows if row["name"] == name), key=_p50)
        color = _COLORS[line[0]["kind"]]
        axes.plot(
            [_p50(row) for row in line],
            [_known_joules(row) for row in line],
            color=color,
            linewidth=1.0,
            marker=marker,
            markersize=5.5,
            label=_short(name),
        )
    modes = list(dict.fromkeys(row.get("power_mode") for row in rows))
    for mode in modes if len(modes) > 1 else []:
        # Once for each mode, above its highest point.
        top = max((row for row in rows if row.get("power_mode") == mode), key=_known_joules)
        axes.annotate(
            in_plot(mode),
            (_p50(top), _known_joules(top)),
            (0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=INK,
        )
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower right")
    axes.set_xlim(0, 1.08 * max(_p50(row) for row in rows))
    joules = [_known_joules(row) for row in rows]
    axes.set_ylim(min(0.0, 1.1 * min(joules)), 1.2 * max(*joules, 1e-9))
    source = rows[0]["energy"]["source"]
    axes.set_title(
        in_plot(f"batch {batch}, energy less idle ({source})"),
        loc="left",
        fontsize=10,
        color=FAINT,
    )
    axes.set_xlabel("milliseconds a call, median", color=INK)
    axes.set_ylabel("joules an image", color=INK)
    light_axes(axes, grid=None)


def _p50(row: dict[str, Any]) -> float:
    return float(row["ms"]["p50"])


def _known_joules(row: dict[str, Any]) -> float:
    return float(row["energy"]["joules_per_image"])


def _joules(row: dict[str, Any]) -> float | None:
    found: float | None = (row.get("energy") or {}).get("joules_per_image")
    return found


def _label(row: dict[str, Any]) -> str:
    label = f"{row['ms']['p50']:#.3g}".rstrip(".") + " ms"
    ratio = row["ratio"]
    if ratio is None:
        return label
    if ratio["verdict"] == "no measurable difference":
        return f"{label}  no measurable difference"
    return f"{label}  {ratio['value']:.2f}{TIMES} [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def _short(name: str) -> str:
    return in_plot(name, 32)


def _circumstances(document: dict[str, Any]) -> str:
    machine = document["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    counts = sorted({row["count"] for row in document["rows"]})
    rounds = " to ".join(str(count) for count in dict.fromkeys([counts[0], counts[-1]]))
    backends = ", ".join(sorted({row["backend"] for row in document["rows"]}))
    gpu = machine.get("gpu") if any(on_nvidia(row["backend"]) for row in document["rows"]) else None
    hardware = [gpu["name"]] if gpu else []
    hardware += [machine["cpu"] or machine["arch"], f"{machine['session_threads']} threads"]
    against = sorted({row["ratio"]["to"] for row in document["rows"] if row["ratio"]})
    compared = (
        f"{TIMES} is the median over that of {' / '.join(against)} (dotted), with 95 % interval. "
    )
    lines = (
        f"{compared if against else ''}{rounds} interleaved rounds.",
        f"{', '.join(hardware)}, backend {backends}, load {machine['load']} at the start. {versions}.",
    )
    return "\n".join(in_plot(line, 400) for line in lines)
