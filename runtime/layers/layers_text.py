"""`vptkit profile --layers` as text: the model's parts, the slowest layers, and what changed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vptkit.shown_text import shown, terminal_width
from vptkit.text_table import columns, milliseconds

from .layer_time import PlaceTime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .layer_comparison import PlaceChange
    from .layer_time import LayerProfile, LayerTime

__all__ = ["changes_text", "layers_text"]

_SLOWEST = 8
_WITHIN = ("attention", "mlp", "norm1", "norm2")
_MUTE = "-"


def layers_text(profile: LayerProfile) -> str:
    """Where the time of a bundle goes; without times the types that its layers compute in."""
    if not profile.runs:
        return "\n".join([_title(profile), _types(profile), shown(profile.note)])
    parts = [_title(profile), _places(profile), "", _slowest(profile), _roof(profile)]
    return "\n".join([*parts, *([shown(profile.note)] if profile.note else [])])


def changes_text(before: LayerProfile, after: LayerProfile, changes: Sequence[PlaceChange]) -> str:
    """What changed from one bundle to another; parts with the same layers are one line in the end."""
    rows = [
        [c.place, _ms(c.before), _ms(c.after), f"{c.ms:+.3f}", _counts(c)]
        for c in changes
        if not c.same
    ]
    title = f"{shown(before.name)} → {shown(after.name)}"
    same = [change for change in changes if change.same]
    lines = [title]
    if rows:
        header = ["part", "ms before", "after", "change", "layers"]
        lines.append(columns(header, rows, width=terminal_width()))
    if same:
        lines.append(
            f"{len(same)} parts have the same layers: {sum(c.ms for c in same):+.3f} ms in all"
        )
    lines.append(f"all layers: {before.layers_ms:.3f} → {after.layers_ms:.3f} ms")
    return "\n".join(lines)


def _title(profile: LayerProfile) -> str:
    asked = f", adapter {', '.join(map(shown, profile.adapters))}" if profile.adapters else ""
    head = f"{shown(profile.name)}: {profile.backend}, batch {profile.batch}{asked}"
    if profile.run_ms is None:
        return f"{head}: {len(profile.layers)} layers, not run"
    between = profile.run_ms - profile.layers_ms
    return (
        f"{head}: {len(profile.runs)} runs of {milliseconds(profile.run_ms)} ms under the profiler, "
        f"{milliseconds(between)} ms of it between layers"
    )


def _places(profile: LayerProfile) -> str:
    """A line for each block, its parts side by side, and for what is outside of them."""
    groups: dict[str, dict[str, PlaceTime]] = {}
    for place in profile.places:
        block = re.fullmatch(r"(blocks\.\d+)(?:\.(\w+))?", place.place)
        name, part = (block[1], block[2] or "") if block else (place.place, "")
        groups.setdefault(name, {})[part] = place
    header = ["part", *_WITHIN, "ms in all", "share", "of roof"]
    rows = [_group(profile, name, parts) for name, parts in groups.items()]
    return columns(header, rows, width=terminal_width())


def _group(profile: LayerProfile, name: str, parts: dict[str, PlaceTime]) -> list[str]:
    whole = PlaceTime(place=name, layers=tuple(x for part in parts.values() for x in part.layers))
    share, roof = whole.ms / profile.layers_ms, whole.of_roof(profile.roof)
    return [
        name,
        *(_ms(parts[part].ms) if part in parts else "" for part in _WITHIN),
        _ms(whole.ms),
        f"{100 * share:.1f} %",
        _MUTE if roof is None else f"{100 * roof:.0f} %",
    ]


def _slowest(profile: LayerProfile) -> str:
    header = ["slowest layers", "operator", "ms", "share", "GFLOP/s", "GB/s", "of roof"]
    layers = sorted(profile.layers, key=lambda layer: -layer.ms)[:_SLOWEST]
    return columns(header, [_layer(profile, layer) for layer in layers], width=terminal_width())


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


def _types(profile: LayerProfile) -> str:
    rows = []
    for place in profile.places:
        types = sorted({layer.type for layer in place.layers if layer.type})
        rows.append([place.place, str(len(place.layers)), ", ".join(types) or _MUTE])
    return columns(["part", "layers", "types"], rows, width=terminal_width())


def _roof(profile: LayerProfile) -> str:
    if profile.roof is None:
        return f"no roof: {profile.no_roof}"
    gflops, gbs = profile.roof.flops / 1e9, profile.roof.bandwidth / 1e9
    return f"the roof: {gflops:.0f} GFLOP/s and {gbs:.0f} GB/s, {profile.roof.source}"


def _ms(value: float | None) -> str:
    return _MUTE if value is None else f"{value:.3f}"


def _rate(value: float | None) -> str:
    if not value:
        return _MUTE
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _counts(change: PlaceChange) -> str:
    return ", ".join(f"{count:+d} {shown(name)}" for name, count in change.operators.items())
