"""A report: the parts in order, and the file."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import vptkit
from vptkit.atomic_files import atomic_file, require_absent, require_writable
from vptkit.errors import OutputError, VptkitError
from vptkit.plot_text import require_matplotlib

from .bundle_facts import bundle_facts
from .page import filled, require_jinja

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["make_report", "require_page"]

_SUFFIXES = (".html", ".htm")


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


def make_report(bundles: Sequence[Path], output: Path) -> dict[str, Any]:
    """Write one page about bundles.

    Args:
        bundles: folders NAME.vptk, at least one.
        output: the file; an existing one is replaced.

    Returns:
        What the page was filled with.

    Raises:
        BundleError: no bundle, or one that was changed.
        MissingExtraError: Jinja or matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    if not bundles:
        raise VptkitError("BUNDLE is missing: name one or more to report on")
    facts = [{"facts": bundle_facts(path)} for path in bundles]
    document = {
        "title": ", ".join(one["facts"]["name"] for one in facts),
        "version": vptkit.__version__,
        "made": dt.datetime.now(tz=dt.timezone.utc).date().isoformat(),
        "bundles": facts,
        "together": None,
    }
    page = filled("page.html.jinja", document)
    with atomic_file(output) as part:
        part.write_text(page, encoding="utf-8")
    return document
