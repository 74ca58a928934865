"""`vptkit doctor`: what this machine can do, what is missing, and the command that mends it.

No future import of annotations here: typer reads them at run time.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vptkit.cli.shared.options import AsJson
from vptkit.cli.shared.output import emit
from vptkit.errors import MissingError
from vptkit.shown_text import shown

if TYPE_CHECKING:
    from vptkit.runtime.doctor.diagnosis import Diagnosis

__all__ = ["doctor"]


def doctor(
    bundle: Annotated[
        Path | None,
        typer.Argument(metavar="[BUNDLE]", help="Also try every backend on this bundle."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what this machine can do with bundles, and how to mend what is missing."""
    from vptkit.progress import progress
    from vptkit.runtime.doctor.diagnosis import examine

    with progress("doctor") as bar:
        diagnosis = examine(bundle, progress=bar)
    emit(diagnosis.to_json(), as_json, text=_text(diagnosis))
    if not diagnosis.ok:
        what = "bundles" if bundle is None else str(bundle)
        raise MissingError(f"no backend can run {what} on this machine; see what is missing above")


def _text(diagnosis: "Diagnosis") -> str:
    """One line for each check, and below it what mends it."""
    width = max(len(check.name) for check in diagnosis.checks)
    lines = []
    for check in diagnosis.checks:
        lines.append(shown(f"{check.state:7}  {check.name:{width}}  {check.found}"))
        if check.fix is not None and check.state != "ok":
            lines.append(shown(f"{'':7}  {'':{width}}  fix: {check.fix}"))
    lines.append(f"\nbackends that can run here: {', '.join(diagnosis.backends) or 'none'}")
    return "\n".join(lines)
