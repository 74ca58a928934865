"""`vptkit profile --layers` as text: the model's parts, the slowest layers, and what changed.

Tables are made as cells first, which `vptkit report` shows, too.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from vptkit.shown_text import shown, terminal_width
from vptkit.text_table import columns, milliseconds

from .layer_time import PlaceTime
from .node_places import block_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .layer_comparison import PlaceChange
    from .layer_time import LayerProfile, LayerTime

    Cells = tuple[list[str], list[list[str]]]  # heading, rows; of names that may be a stranger's

__all__ = [
    "change_cells",
    "changes_text",
    "layer_cells",
    "layers_text",
    "operator_cells",
    "place_cells",
    "roof_words",
    "run_words",
    "type_cells",
]

_SLOWEST = 8
_MUTE = "-"


def layers_text(profile: LayerProfile) -> str:
    """Where the time of a bundle goes; without times the types that its layers compute in."""
    title = f"{profile.name}: {run_words(profile)}"
    note = [profile.note] if profile.note else []
    if not profile.runs:
        return "\n".join([shown(title), _table(type_cells(profile)), *map(shown, note)])
    tables = [_table(place_cells(profile)), "", _table(layer_cells(profile))]
    return "\n".join([shown(title), *tables, *map(shown, [roof_words(profile), *note])])


def changes_text(before: LayerProfile, after: LayerProfile, changes: Sequence[PlaceChange]) -> str:
    """What changed from one bundle to another; parts with the same layers are one line in the end."""
    head, rows, told = change_cells(before, after, changes)
    lines = [f"{before.name} → {after.name}"]
    return "\n".join(
        [*map(shown, lines), *([_table((head, rows))] if rows else []), *map(shown, told)]
    )


def run_words(profile: LayerProfile) -> str:
    """What was run, and how long a run took."""
    asked = f", adapter {', '.join(profile.adapters)}" if profile.adapters else ""
    head = f"{profile.backend}, batch {profile.batch}{asked}"
    if profile.run_ms is None:
        return f"{head}: {len(profile.layers)} layers, not run"
    between = profile.run_ms - profile.layers_ms
    return (
        f"{head}: {len(profile.runs)} runs of {milliseconds(profile.run_ms)} ms under the profiler, "
        f"{milliseconds(between)} ms of it between layers"
    )


def roof_words(profile: LayerProfile) -> str:
    """What the machine can do at most, or why that is not known."""
    if profile.roof is None:
        return f"no roof: {profile.no_roof}"
    gflops, gbs = profile.roof.flops / 1e9, profile.roof.bandwidth / 1e9
    return f"the roof: {gflops:.0f} GFLOP/s and {gbs:.0f} GB/s, {profile.roof.source}"


def place_cells(profile: LayerProfile) -> Cells:
    """A row for each block, its parts side by side, and for what is outside of them."""
    groups = itertools.groupby(profile.places, key=lambda place: block_of(place.place))
    rows = [_block(profile, name, list(places)) for name, places in groups]
    return ["part", *profile.parts, "ms in all", "share", "of roof"], rows


def layer_cells(profile: LayerProfile) -> Cells:
    """The slowest layers."""
    header = ["slowest layers", "operator", "ms", "share", "GFLOP/s", "GB/s", "of roof"]
    layers = sorted(profile.layers, key=lambda layer: -layer.ms)[:_SLOWEST]
    return header, [_layer(profile, layer) for layer in layers]


def operator_cells(profile: LayerProfile) -> Cells:
    """The operators of each part."""
    rows = []
    for place in profile.places:
        for operator, layers in place.by_operator().items():
            own = PlaceTime(place=operator, layers=tuple(layers))
            rows.append([place.place, operator or _MUTE, str(len(layers)), *_whole(profile, own)])
    return ["part", "operator", "layers", "ms", "share", "of roof"], rows


def type_cells(profile: LayerProfile) -> Cells:
    """The types that each part's layers compute in."""
    rows = []
    for place in profile.places:
        types = sorted({layer.type for layer in place.layers if layer.type})
        rows.append([place.place, str(len(place.layers)), ", ".join(types) or _MUTE])
    return ["part", "layers", "types"], rows


def change_cells(
    before: LayerProfile, after: LayerProfile, changes: Sequence[PlaceChange]
) -> tuple[list[str], list[list[str]], list[str]]:
    """Heading and rows of the parts whose layers differ, and sentences on the rest.

    Args:
        before, after: two bundles.
        changes: of `layer_comparison.compare_layers`.
    """
    rows = [
        [c.place, _ms(c.before), _ms(c.after), f"{c.ms:+.3f}", _counts(c)]
        for c in changes
        if not c.same
    ]
    told = [f"all layers: {before.layers_ms:.3f} → {after.layers_ms:.3f} ms"]
    same = [change for change in changes if change.same]
    if same:
        ms = sum(change.ms for change in same)
        told.insert(0, f"{len(same)} parts have the same layers: {ms:+.3f} ms in all")
    return ["part", "ms before", "after", "change", "layers"], rows, told


def _table(cells: Cells) -> str:
    return columns(*cells, width=terminal_width())


def _block(profile: LayerProfile, name: str, places: list[PlaceTime]) -> list[str]:
    parts = {place.place.removeprefix(name).lstrip("."): place for place in places}
    whole = PlaceTime(place=name, layers=tuple(x for part in places for x in part.layers))
    return [
        name,
        *(_ms(parts[part].ms) if part in parts else "" for part in profile.parts),
        *_whole(profile, whole),
    ]


def _whole(profile: LayerProfile, whole: PlaceTime) -> list[str]:
    share, roof = whole.ms / (profile.layers_ms or 1.0), whole.of_roof(profile.roof)
    reached = _MUTE if roof is None else f"{100 * roof:.0f} %"
    return [_ms(whole.ms), f"{100 * share:.1f} %", reached]


def _layer(profile: LayerProfile, layer: LayerTime) -> list[str]:
    found = layer.to_json(profile.layers_ms, profile.roof)
    name = layer.name if len(layer.name) < 60 else f"{layer.name[:57]}..."
    return [name, layer.operator or _MUTE, _ms(layer.ms), *_cells(found)]


def _cells(found: dict[str, float | None]) -> list[str]:
    share, roof = found["share"], found["of_roof"]
    return [
        _MUTE if share is None else f"{100 * share:.1f} %",
        _rate(found["gflops"]),
        _rate(found["gbs"]),
        _MUTE if roof is None else f"{100 * roof:.0f} %",
    ]


def _ms(value: float | None) -> str:
    return _MUTE if value is None else f"{value:.3f}"


def _rate(value: float | None) -> str:
    if not value:
        return _MUTE
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _counts(change: PlaceChange) -> str:
    return ", ".join(f"{count:+d} {name}" for name, count in change.operators.items())
