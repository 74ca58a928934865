"""`vptkit inspect`: what an adapter file or a bundle is.

No future import of annotations here: typer reads them at run time.
"""

from pathlib import Path
from typing import Annotated

import typer

from vptkit.cli.shared.options import AsJson
from vptkit.cli.shared.output import emit

__all__ = ["inspect"]


def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="An adapter file or a bundle.")],
    as_json: AsJson = False,
) -> None:
    """Say what an adapter file or a bundle is."""
    from vptkit.formats.summary import summarize

    emit(summarize(path), as_json)
