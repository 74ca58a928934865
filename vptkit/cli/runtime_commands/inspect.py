"""`vptkit inspect`: what an adapter file or a bundle is.

No future import of annotations here: typer reads them at run time.
"""

from pathlib import Path
from typing import Annotated

import typer

from vptkit.cli.shared.options import AsJson
from vptkit.cli.shared.output import emit
from vptkit.regular_files import is_folder

__all__ = ["inspect"]


def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="An adapter file, a bundle, an engine or a page.")
    ],
    everything: Annotated[
        bool, typer.Option("--all", "--verbose", help="Print all that is in it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what an adapter file or a bundle is."""
    from vptkit.cli.texts.inspect_text import inspect_text, made_of
    from vptkit.formats.summary import summarize
    from vptkit.runtime.web.web_manifest import summarize_web

    document = (summarize_web(path) if is_folder(path) else None) or summarize(path)
    if as_json or everything:
        emit(document, as_json)
    elif document["kind"] == "bundle":
        emit(document, as_json, text=inspect_text(document, *made_of(path)))
    else:
        emit(document, as_json, text=inspect_text(document))
