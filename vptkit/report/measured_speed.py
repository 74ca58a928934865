"""How fast bundles are: profiles that were measured now, or are given as files."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from vptkit.cli.texts.profile_table import profile_cells, profile_notes
from vptkit.errors import VptkitError

from .measured_layers import Layers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vptkit.progress import Progress

    from .report_settings import ReportSettings

__all__ = [
    "Profile",
    "given_profiles",
    "measured_profile",
    "rows_of",
    "speed_facts",
]


class Profile(NamedTuple):
    """What was measured.

    Attributes:
        title: of its section.
        document: of `vptkit.runtime.profile.benchmark.profile`.
        note: what a reader must know besides, or "".
    """

    title: str
    document: dict[str, Any]
    note: str = ""


def given_profiles(files: Sequence[Path]) -> tuple[list[Profile], list[Layers]]:
    """One for each file: what was measured of whole runs, and of layers.

    Raises:
        DataError: one is no profile (`vptkit.runtime.profile.profile_file.read_profile`,
            `vptkit.runtime.layers.layers_file.read_layers`).
    """
    from vptkit.runtime.layers.layers_file import read_layers
    from vptkit.runtime.profile.profile_file import read_profile

    profiles: list[Profile] = []
    several: list[Layers] = []
    for path in files:
        layers = read_layers(path)
        if layers is None:
            profiles.append(Profile(path.name, read_profile(path)))
        else:
            several.append(Layers(path.name, layers))
    return profiles, several


def measured_profile(
    bundles: Sequence[Path], settings: ReportSettings, progress: Progress
) -> Profile:
    """Profile bundles now, interleaved in one process with the bare backbone of each.

    Without onnx, which writes the baselines, or without what they are made of, the bundles are measured
    alone, and the note says so.

    Raises:
        MissingError, TargetError: see `vptkit.runtime.profile.run_profile.profile_bundles`.
    """
    from vptkit.api.judging import baselines_of
    from vptkit.runtime.backends.selection import default_backend
    from vptkit.runtime.profile.run_profile import profile_bundles
    from vptkit.runtime.profile.settings import ProfileSettings

    asked = ProfileSettings(
        backend=settings.backend or default_backend(),
        threads=settings.threads,
        adapter=settings.adapter,
        batches=settings.batches,
        seconds=settings.measure,
        energy=settings.energy,
        trust_engines=settings.trust_engines,
    )
    named: Sequence[Mapping[str, Path]] = []
    note = ""
    with contextlib.ExitStack() as stack:
        try:
            named = stack.enter_context(baselines_of(bundles))
        except VptkitError as error:
            note = f"measured without the bare backbone: {error}"
        document = profile_bundles(bundles, asked, baselines=named, progress=progress)
    return Profile("measured for this report", document, note)


def speed_facts(profile: Profile) -> dict[str, Any]:
    """What is shown of a profile.

    Returns:
        "title"; "head" and "rows" of the table, its "notes"; "machine" in words; the pictures
        "medians", "distribution" and "batches" as SVG, None where there is nothing to draw;
        "medians_words", the caption of the first.
    """
    from vptkit.plot_text import PAGE, inline_svg
    from vptkit.runtime.profile.latency_plots import batch_figure, distribution_figure
    from vptkit.runtime.profile.profile_plot import profile_figure

    title, document, note = profile
    head, rows = profile_cells(document)
    drawn = {
        "medians": profile_figure(document, PAGE),
        "distribution": distribution_figure(document["rows"]),
        "batches": batch_figure(document["rows"]),
    }
    return {
        "title": title,
        "head": head,
        "rows": rows,
        "notes": [*filter(None, [note]), *profile_notes(document)],
        "machine": _machine(document["machine"]),
        "medians_words": _medians_words(document["rows"]),
        **{
            name: None if figure is None else inline_svg(figure, f"{name}, {title}")
            for name, figure in drawn.items()
        },
    }


def rows_of(profiles: Sequence[Profile], graph: str) -> list[dict[str, Any]]:
    """The rows of a graph, whatever its bundle was called there.

    Args:
        profiles: where they may stand.
        graph: digest of model.onnx.
    """
    return [
        row
        for profile in profiles
        for row in profile.document["rows"]
        if row.get("graph_sha256") == graph and row["kind"] == "adapter"
    ]


def _medians_words(rows: Sequence[Mapping[str, Any]]) -> str:
    words = "Bar: median of a call; whisker: 90th percentile"
    against = sorted({row["ratio"]["to"] for row in rows if row["ratio"]})
    if against:
        words += f"; ratio to {' / '.join(against)} (dotted), with its 95 % interval"
    if any((row.get("energy") or {}).get("joules_per_image") is not None for row in rows):
        words += ". Below, energy: joules an image, less those of the idle machine"
    return f"{words}."


def _machine(machine: Mapping[str, Any]) -> str:
    """As "Intel Xeon, 2 threads, load 4.78, onnxruntime 1.32.0"."""
    gpu = machine.get("gpu")
    versions = [f"{name} {version}" for name, version in machine["versions"].items()]
    parts = [
        *([gpu["name"]] if gpu else []),
        machine["cpu"] or machine["arch"],
        f"{machine['session_threads']} threads",
        f"load {machine['load']} at the start",
        *versions,
    ]
    return ", ".join(parts)
