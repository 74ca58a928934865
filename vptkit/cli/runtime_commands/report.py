"""`vptkit report`: one HTML page about bundles, to be sent to somebody.

No future import of annotations here: typer reads them at run time.
"""

from pathlib import Path
from typing import Annotated

import typer

from vptkit.cli.shared.options import AsJson, Force
from vptkit.cli.shared.output import emit
from vptkit.cli.shared.verdict import wrote

__all__ = ["report"]


def report(
    bundles: Annotated[
        list[Path], typer.Argument(metavar="BUNDLE...", help="Side by side.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write.")] = Path(
        "report.html"
    ),
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page: what bundles are, how good, how fast, and on which boards."""
    from vptkit.report.make_report import make_report, require_page

    require_page(output, force=force)
    document = make_report(bundles, output)
    emit({"report": str(output), **document}, as_json, text=wrote(output))
