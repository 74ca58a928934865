"""`vptkit run`: classify images.

No future import of annotations here: typer reads them at run time.
"""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from vptkit.cli.shared.options import Backend, BundleArgument, Force, Threads, TrustEngines
from vptkit.cli.shared.output import announce
from vptkit.errors import DataError

__all__ = ["run"]


def run(
    bundle: BundleArgument,
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Images, folders, globs.")
    ],
    adapter: Annotated[str | None, typer.Option(help="Which adapter of the bundle.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Labels for each image.")] = 5,
    save: Annotated[
        Path | None,
        typer.Option("-o", "--save", "--output", help="Write to this .jsonl or .csv file."),
    ] = None,
    force: Force = False,
    backend: Backend = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Images for each run.")] = 8,
    threads: Threads = None,
    trust_engines: TrustEngines = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Classify images; a broken one is reported and the others go on."""
    from vptkit.runtime.session.factory import open_session
    from vptkit.runtime.session.prediction import predict
    from vptkit.runtime.session.prediction_writers import deliver, jsonl_writer, saving, text_writer

    session = open_session(bundle, backend, threads, trust_engines=trust_engines)
    announce(session, backend)
    with contextlib.ExitStack() as stack:
        writers = []
        if save is not None:
            writers.append(stack.enter_context(saving(save, top_k=top_k, force=force)))
        if as_json or save is None:
            writers.append(jsonl_writer(sys.stdout) if as_json else text_writer(sys.stdout))
        predictions = predict(session, sources, adapter=adapter, top_k=top_k, batch=batch)
        broken, count = deliver(predictions, writers)
    if broken:
        raise DataError(f"{len(broken)} of {count} images failed; the first: {broken[0].error}")
