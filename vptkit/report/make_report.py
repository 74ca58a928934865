"""A report: the parts in order, and the file."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vptkit
from vptkit.atomic_files import require_absent, require_writable
from vptkit.errors import OutputError, VptkitError
from vptkit.pages.page_file import write_page
from vptkit.plot_text import require_matplotlib
from vptkit.progress import no_phases

from .board_predictions import chosen_boards, predictions
from .bundle_facts import bundle_facts
from .measured_layers import layer_facts, measured_layers
from .measured_speed import given_profiles, measured_profile, speed_facts
from .page import filled, require_jinja
from .quality_facts import noted_scores, quality_facts
from .report_settings import ReportSettings
from .side_by_side import side_by_side

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vptkit.progress import Phases

__all__ = ["make_report", "report", "require_page"]

_SUFFIXES = (".html", ".htm")
_SEVERAL = ("profiles", "boards", "batches")  # settings that are several


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
    several = [bundles] if isinstance(bundles, str | Path) else bundles
    chosen = _settings(settings, changes)
    require_page(Path(output), force=force)
    return make_report([Path(one) for one in several], Path(output), chosen, phases=phase)


def require_page(path: Path, *, force: bool) -> None:
    """Find out before anything is measured whether the page could be made and written.

    Raises:
        OutputError: another suffix than .html, the file exists and force is off, or it cannot be
            written.
        MissingExtraError: Jinja or matplotlib is not installed.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise OutputError(f"{path}: a report is written as .html, not {path.suffix!r}")
    require_absent(path, force=force)
    require_writable(path)
    require_matplotlib("report", "a report")
    require_jinja()


def make_report(
    bundles: Sequence[Path],
    output: Path,
    settings: ReportSettings | None = None,
    *,
    phases: Phases = no_phases,
) -> dict[str, Any]:
    """Write one page about bundles.

    Args:
        bundles: folders NAME.vptk, at least one.
        settings: what is judged and measured.
        phases: opens the progress of a part.
        output: the file; an existing one is replaced.

    Returns:
        What the page was filled with.

    Raises:
        BundleError: no bundle, or one that was changed.
        DataError: the images cannot be read, or are of other classes; or a file is no profile.
        MissingExtraError: Jinja or matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    from vptkit.runtime.layers.profile_layers import names_of

    if not bundles:
        raise VptkitError("BUNDLE is missing: name one or more to report on")
    settings = settings or ReportSettings()
    named = names_of(bundles)
    facts = [bundle_facts(path, name) for name, path in named.items()]  # before anything is run
    profiles, layers = given_profiles(settings.profiles)
    boards = chosen_boards(settings.boards)
    judged = [
        {"facts": one, **_judged(path, one, settings, phases)}
        for path, one in zip(bundles, facts, strict=True)
    ]
    if settings.measure:
        with phases("profile", None) as bar:
            profiles.insert(0, measured_profile(bundles, settings, bar))
    if settings.layers:
        with phases("layers", None) as bar:
            layers.insert(0, measured_layers(bundles, settings, bar))
    document = {
        "title": ", ".join(one["name"] for one in facts),
        "version": vptkit.__version__,
        "made": dt.datetime.now(tz=dt.timezone.utc).date().isoformat(),
        "bundles": judged,
        "settings": {"data": str(settings.data)},
        "speed": [speed_facts(profile) for profile in profiles],
        "layers": [layer_facts(one) for one in layers],
        "boards": predictions(bundles, boards),
        "together": side_by_side(judged, profiles),
    }
    page = filled("page.html.jinja", document)
    write_page(page, output)
    return document


def _judged(
    path: Path, facts: dict[str, Any], settings: ReportSettings, phases: Phases
) -> dict[str, Any]:
    """How good a bundle is: "quality", or None and why it is "unjudged"; "noted" is of the training."""
    from vptkit.formats.manifest_schema import LOGITS
    from vptkit.runtime.session.factory import open_session

    noted = noted_scores(facts["train"])
    if settings.data is None:
        why = "Not judged: --data FOLDER names labelled images."
        return {"noted": noted, "quality": None, "unjudged": why}
    with open_session(
        path, settings.backend, settings.threads, trust_engines=settings.trust_engines
    ) as session:
        if LOGITS not in session.bundle.outputs:
            why = "Not judged: this bundle gives features and no answers."
            return {"noted": noted, "quality": None, "unjudged": why}
        with phases(f"eval of {facts['name']}", None) as bar:
            found = quality_facts(session, settings.data, settings, progress=bar)
        return {"noted": noted, "quality": found | {"backend": session.backend}}


def _settings(settings: ReportSettings | None, changes: Mapping[str, Any]) -> ReportSettings:
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
