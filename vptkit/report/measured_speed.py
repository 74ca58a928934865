"""How fast bundles are: profiles that were measured now, or are given as files."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vptkit.cli.shared.profile_table import profile_cells, profile_notes
from vptkit.errors import VptkitError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vptkit.progress import Progress

    from .report_settings import ReportSettings

__all__ = ["given_profiles", "measured_profile", "require_names", "rows_of", "speed_facts"]


def given_profiles(files: Sequence[Path]) -> list[tuple[str, dict[str, Any]]]:
    """Name and document of each file.

    Raises:
        DataError: one is no profile (`vptkit.runtime.profile.profile_file.read_profile`).
    """
    from vptkit.runtime.profile.profile_file import read_profile

    return [(path.name, read_profile(path)) for path in files]


def measured_profile(
    bundles: Sequence[Path], settings: ReportSettings, progress: Progress
) -> tuple[str, dict[str, Any]]:
    """Profile bundles now, interleaved in one process with the bare backbone of each.

    Without onnx, which writes the baselines, the bundles are measured alone.

    Raises:
        VptkitError: two bundles of one name, or see `vptkit.api.judging.profile`.
    """
    from vptkit.api.judging import profile

    given = {
        "adapter": settings.adapter,
        "threads": settings.threads,
        "backend": settings.backend,
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    document = profile(
        bundles,
        baseline=find_spec("onnx") is not None,
        progress=progress,
        seconds=settings.measure,
        trust_engines=settings.trust_engines,
        batches=settings.batches,
        **changes,
    )
    return "measured for this report", document


def speed_facts(title: str, document: dict[str, Any]) -> dict[str, Any]:
    """What is shown of a profile.

    Args:
        title: of the section.
        document: of `vptkit.runtime.profile.benchmark.profile`.

    Returns:
        "title"; "head" and "rows" of the table, its "notes"; "machine" in words; the pictures
        "medians", "distribution" and "batches" as SVG, None where there is nothing to draw.
    """
    from vptkit.plot_text import inline_svg
    from vptkit.runtime.profile.latency_plots import batch_figure, distribution_figure
    from vptkit.runtime.profile.profile_plot import profile_figure

    head, rows = profile_cells(document)
    drawn = {
        "medians": profile_figure(document),
        "distribution": distribution_figure(document["rows"]),
        "batches": batch_figure(document["rows"]),
    }
    return {
        "title": title,
        "head": head,
        "rows": rows,
        "notes": profile_notes(document),
        "machine": _machine(document["machine"]),
        **{
            name: None if figure is None else inline_svg(figure, f"{name}, {title}")
            for name, figure in drawn.items()
        },
    }


def rows_of(
    profiles: Sequence[tuple[str, dict[str, Any]]], graph: str
) -> list[tuple[str, dict[str, Any]]]:
    """Machine and row of each measurement of a graph, whatever its bundle was called there.

    Args:
        profiles: titles and documents.
        graph: digest of model.onnx.
    """
    return [
        (_machine(document["machine"]), row)
        for _, document in profiles
        for row in document["rows"]
        if row.get("graph_sha256") == graph and row["kind"] == "adapter"
    ]


def require_names(names: Sequence[str]) -> None:
    """Bundles that are measured side by side are told apart by their names.

    Raises:
        VptkitError: two have one name.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise VptkitError(
            f"two bundles have the name {twice[0]!r}: --profile cannot tell them apart"
        )


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
