"""Where the time of a bundle goes, as pictures: a bar for each block, and a flame graph.

Both are drawn of what `vptkit profile --layers` measured, by `--plot` of that command and in
`vptkit report` alike.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from vptkit.plot_text import (
    FAINT,
    INK,
    LINE,
    hover,
    in_plot,
    light_axes,
    new_figure,
    plain_pictures,
    write_figure,
)
from vptkit.text_table import milliseconds

from .layer_time import PlaceTime
from .node_places import WITHIN, block_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .layer_time import LayerProfile, LayerTime

__all__ = ["Slice", "flame_figure", "flame_slices", "places_figure", "plot_layers"]

# White letters are read on each of them
_COLOURS = {
    "attention": "#2a6f97",
    "mlp": "#a8431a",
    "norm1": "#1f7a4d",
    "norm2": "#7a4d8c",
    "merge": "#8a6a14",
}
_OUTSIDE, _WHOLE = "#5d6673", "#40474f"
_BAR, _LEVEL = 0.27, 0.36  # inches: height of a bar, and of a level of the flame graph
_LEVELS = 4  # model, block, part, operator
_LETTER = 0.62  # width of a letter, in heights
_SIZE = 8.5  # points
_LEAST = 0.001  # share of the time below which a slice is too thin to be seen


class Slice(NamedTuple):
    """One box of a flame graph.

    Attributes:
        level: 0 for the model, 1 blocks, 2 parts of a block, 3 operators.
        names: what it is, the longest first; the first that fits is written in it.
        start, ms: where it begins, and how wide it is, in milliseconds.
        part: of the block, or "" outside of one.
        told: what it says to the pointer.
    """

    level: int
    names: tuple[str, ...]
    start: float
    ms: float
    part: str
    told: str


def plot_layers(profiles: Sequence[LayerProfile], path: Path) -> None:
    """Draw bars and flame graph of each bundle, one below the other, and write them to one file.

    Args:
        profiles: at least one that has times.
        path: .png, .svg or .pdf; replaced if it is there.

    Raises:
        OutputError: another suffix, or the file cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    write_figure(_all(profiles), path)


@plain_pictures()
def _all(profiles: Sequence[LayerProfile]) -> Figure:
    heights = [h for one in profiles for h in (_bars_height(one) + 0.3, _LEVELS * _LEVEL + 0.5)]
    figure = new_figure(10.0, sum(heights) + 0.3)
    panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for number, profile in enumerate(profiles):
        bars, flame = panels[2 * number : 2 * number + 2]
        _draw_bars(bars, profile)
        bars.set_title(in_plot(_title(profile)), loc="left", fontsize=10, color=INK, pad=24)
        _draw_flame(flame, profile, 9.0)
    return figure


@plain_pictures()
def places_figure(profile: LayerProfile, width: float = 8.0) -> Figure:
    """A bar for each block and for each part outside of one, in the order in which they are computed.

    Args:
        profile: with times.
        width: inches.
    """
    figure = new_figure(width, _bars_height(profile))
    _draw_bars(figure.subplots(), profile)
    return figure


@plain_pictures()
def flame_figure(profile: LayerProfile, width: float = 10.0) -> Figure:
    """Model, blocks, their parts, operators, one above the other; the width is the time.

    Args:
        profile: with times.
        width: inches.
    """
    figure = new_figure(width, _LEVELS * _LEVEL + 0.1)
    _draw_flame(figure.subplots(), profile, width)
    return figure


def flame_slices(profile: LayerProfile) -> list[Slice]:
    """The boxes of a flame graph, those that are too thin to be seen left out."""
    total = profile.layers_ms
    told = f"{profile.name}: all layers, {milliseconds(total)} ms"
    found = [Slice(0, (profile.name, "all"), 0.0, total, "", told)]
    start = 0.0
    for block, places in _groups(profile.places):
        ms = sum(place.ms for place in places)
        short = block.removeprefix("blocks.")
        found.append(
            Slice(1, (block, short), start, ms, "", _told(profile, block, _layers(places)))
        )
        for place in places:
            own = place.place.rpartition(".")[2] if block != place.place else ""
            part = own if own in WITHIN else ""
            if own:
                names = (own, {"attention": "attn"}.get(own, own))
                text = _told(profile, place.place, place.layers)
                found.append(Slice(2, names, start, place.ms, part, text))
            for name, layers in place.by_operator().items():
                own_ms = sum(layer.ms for layer in layers)
                text = f"{place.place}: {name}"
                text += f" × {len(layers)}" if len(layers) > 1 else ""
                level = 3 if own else 2
                told = _told(profile, text, layers)
                found.append(Slice(level, (name,), start, own_ms, part, told))
                start += own_ms
    return [box for box in found if box.ms > _LEAST * total]


def _groups(places: Iterable[PlaceTime]) -> Iterator[tuple[str, list[PlaceTime]]]:
    """Block or part outside of one → its places, in their order."""
    for name, group in itertools.groupby(places, key=lambda place: block_of(place.place)):
        yield name, list(group)


def _layers(places: Iterable[PlaceTime]) -> tuple[LayerTime, ...]:
    return tuple(layer for place in places for layer in place.layers)


def _told(profile: LayerProfile, name: str, layers: Sequence[LayerTime]) -> str:
    """As "blocks.3.attention: 7.40 ms, 3.1 %, 83 % of the roof"."""
    whole = PlaceTime(place=name, layers=tuple(layers))
    share = whole.ms / profile.layers_ms if profile.layers_ms else 0.0
    roof = whole.of_roof(profile.roof)
    reached = "" if roof is None else f", {100 * roof:.0f} % of the roof"
    return f"{name}: {milliseconds(whole.ms)} ms, {100 * share:.1f} %{reached}"


def _title(profile: LayerProfile) -> str:
    return f"{profile.name}: {profile.backend}, batch {profile.batch}, {len(profile.runs)} runs"


def _bars_height(profile: LayerProfile) -> float:
    return _BAR * len(list(_groups(profile.places))) + 1.0


def _draw_bars(axes: Axes, profile: LayerProfile) -> None:
    names, longest = [], 0.0
    for y, (block, places) in enumerate(_groups(profile.places)):
        names.append(in_plot(block, 24))
        start = 0.0
        for place in places:
            part = place.place.rpartition(".")[2]
            colour = _COLOURS.get(part, _OUTSIDE)
            bar = axes.barh(y, place.ms, left=start, height=0.7, color=colour)[0]
            hover(bar, _told(profile, place.place, place.layers))
            start += place.ms
        longest = max(longest, start)
        text = _told(profile, "", _layers(places)).removeprefix(": ").replace(" of the roof", "")
        beside = axes.annotate(text, (start, y), (3, 0), textcoords="offset points", va="center")
        beside.set(fontsize=_SIZE, color=INK)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.45 * longest or 1.0)  # room for the words
    reached = ", share of the roof" if profile.roof else ""
    axes.set_xlabel(f"milliseconds, share of all{reached}", color=FAINT, fontsize=9)
    _name_parts(axes, profile.parts)
    light_axes(axes, grid="x")
    axes.tick_params(axis="y", length=0, labelcolor=INK)


def _name_parts(axes: Axes, parts: Sequence[str]) -> None:
    """A legend of the parts of a block."""
    for name in parts:
        axes.bar(0, 0, color=_COLOURS[name], label=name)
    axes.bar(0, 0, color=_OUTSIDE, label="the rest")
    axes.legend(
        frameon=False,
        fontsize=_SIZE,
        labelcolor=INK,
        ncols=len(parts) + 1,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        columnspacing=1.0,
        handlelength=1.0,
    )


def _draw_flame(axes: Axes, profile: LayerProfile, width: float) -> None:
    from matplotlib.patches import Rectangle  # bars of matplotlib are slow by the hundred

    total = profile.layers_ms or 1.0
    for box in flame_slices(profile):
        colour = _COLOURS.get(box.part, _OUTSIDE) if box.level else _WHOLE
        place = (box.start, box.level - 0.5)
        drawn = Rectangle(place, box.ms, 1.0, facecolor=colour, edgecolor=LINE, linewidth=0.6)
        axes.add_patch(drawn)
        hover(drawn, box.told)
        room = 72 * width * box.ms / total - 4  # points
        fits = [name for name in box.names if len(name) * _LETTER * _SIZE <= room]
        if fits:
            middle = box.start + box.ms / 2
            written = axes.text(middle, box.level, in_plot(fits[0]), ha="center", va="center")
            written.set(fontsize=_SIZE, color="#ffffff")
    axes.set_xlim(0, total)
    axes.set_ylim(_LEVELS - 0.5, -0.5)
    axes.set_axis_off()
