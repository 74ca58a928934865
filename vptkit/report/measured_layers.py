"""Where the time goes: layers that were measured now, or are given as a file of `vptkit profile --layers --json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vptkit.progress import Progress
    from vptkit.runtime.layers.layer_time import LayerProfile

    from .report_settings import ReportSettings

__all__ = ["Layers", "layer_facts", "measured_layers"]


class Layers(NamedTuple):
    """Bundles whose layers were measured in turns.

    Attributes:
        title: of their section.
        profiles: at least one.
    """

    title: str
    profiles: Sequence[LayerProfile]


def measured_layers(
    bundles: Sequence[Path], settings: ReportSettings, progress: Progress
) -> Layers:
    """Run bundles now, in turns, under their backend's profiler.

    Raises:
        VptkitError, MissingError, TargetError: see
            `vptkit.runtime.layers.profile_layers.profile_layers`.
    """
    from vptkit.formats.bundle import open_bundle
    from vptkit.runtime.layers.profile_layers import (
        LayerOptions,
        layers_backend,
        names_of,
        profile_layers,
    )

    fixed = {open_bundle(path, verify=False).batch for path in bundles} - {None}
    options = LayerOptions(
        backend=layers_backend(bundles[0], settings.backend, settings.threads),
        threads=settings.threads,
        adapter=settings.adapter,
        batch=fixed.pop() or 1 if len(fixed) == 1 else 1,
        seconds=settings.layers,
        trust_engines=settings.trust_engines,
    )
    profiles = profile_layers(names_of(bundles), options, progress=progress)
    return Layers("measured for this report", profiles)


def layer_facts(layers: Layers) -> dict[str, Any]:
    """What is shown of them.

    Returns:
        "title"; "bundles", each with its "name", "words", "roof", "note", "tables" of label, heading and
        rows, "operators", heading and rows, and the pictures "bars", "flame" and "slim_flame" (of a telephone), None where
        nothing ran; "changes" from the first one to each other.
    """
    from vptkit.runtime.layers.layer_comparison import compared
    from vptkit.runtime.layers.layers_text import change_cells

    changes = []
    for before, after, found in compared(layers.profiles):
        head, rows, told = change_cells(before, after, found)
        title = f"{before.name} → {after.name}"
        changes.append({"title": title, "head": head, "rows": rows, "told": told})
    return {
        "title": layers.title,
        "bundles": [_shown(profile) for profile in layers.profiles],
        "changes": changes,
    }


def _shown(profile: LayerProfile) -> dict[str, Any]:
    from vptkit.plot_text import PAGE, inline_svg
    from vptkit.runtime.layers.layer_plots import flame_figure, places_figure
    from vptkit.runtime.layers.layers_text import (
        layer_cells,
        operator_cells,
        place_cells,
        roof_words,
        run_words,
        type_cells,
    )

    ran = bool(profile.runs)
    tables = {"Time by block, ms": place_cells(profile), "The slowest layers": layer_cells(profile)}
    if not ran:
        tables = {"Types that the layers compute in": type_cells(profile)}
    drawn = {"bars": (places_figure, PAGE), "flame": (flame_figure, 10.0)}
    drawn |= {"slim_flame": (flame_figure, PAGE)}
    return {
        "name": profile.name,
        "words": run_words(profile),
        "roof": roof_words(profile),
        "note": profile.note,
        "operators": operator_cells(profile) if ran else None,
        "tables": [(label, *cells) for label, cells in tables.items()],
        **{
            name: inline_svg(draw(profile, width), f"{name}, {profile.name}") if ran else None
            for name, (draw, width) in drawn.items()
        },
    }
