"""`vptkit.report`: one HTML page about bundles, as by the command of that name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.errors import VptkitError
from vptkit.progress import no_phases

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vptkit.progress import Phases
    from vptkit.report.report_settings import ReportSettings

__all__ = ["report"]

_SEVERAL = ("profiles", "boards", "batches")


def report(
    bundles: str | Path | Sequence[str | Path],
    output: str | Path,
    settings: ReportSettings | None = None,
    *,
    force: bool = False,
    phase: Phases = no_phases,
    **changes: Any,
) -> dict[str, Any]:
    """Write one HTML page: what bundles are, how good, how fast, and on which boards.

    Args:
        bundles: one or more, side by side.
        output: the page, NAME.html.
        settings: what is judged and measured; nothing unless given.
        force: replace a page that is there.
        phase: is told what is being done, such as `vptkit.progress.progress`.
        changes: fields of `vptkit.ReportSettings` in the place of those of `settings`, such as
            data="flowers/", measure=5.0. Paths may be text.

    Returns:
        What the page was filled with.

    Raises:
        BundleError: no bundle, or one that was changed.
        DataError: images or profiles cannot be read.
        MissingExtraError: Jinja or matplotlib is not installed.
        OutputError: the page is there already, or cannot be written.
        VptkitError: a setting that does not exist, or is out of range.
    """
    from vptkit.report.make_report import make_report, require_page

    several = [bundles] if isinstance(bundles, str | Path) else bundles
    chosen = _settings(settings, changes)
    require_page(Path(output), force=force)
    return make_report([Path(one) for one in several], Path(output), chosen, phases=phase)


def _settings(settings: ReportSettings | None, changes: Mapping[str, Any]) -> ReportSettings:
    from vptkit.report.report_settings import ReportSettings

    names = [field.name for field in dataclasses.fields(ReportSettings)]
    unknown = [name for name in changes if name not in names]
    if unknown:
        raise VptkitError(
            f"report: no setting is called {unknown[0]!r}, expected one of {', '.join(names)}"
        )
    given = dict(changes)
    for name in _SEVERAL:
        if name in given:
            one = isinstance(given[name], (str, Path, int))
            given[name] = (given[name],) if one else tuple(given[name])
    if given.get("data") is not None:
        given["data"] = Path(given["data"])
    if "profiles" in given:
        given["profiles"] = tuple(map(Path, given["profiles"]))
    return dataclasses.replace(settings or ReportSettings(), **given)
