"""`vptkit eval`: top-1 and top-5 on labelled images.

No future import of annotations here: typer reads them at run time.
"""

from pathlib import Path
from typing import Annotated

import typer

from vptkit.cli.shared.options import (
    AllowOutside,
    AsJson,
    Backend,
    BundleArgument,
    Threads,
    TrustEngines,
)
from vptkit.cli.shared.output import announce, emit

__all__ = ["evaluate_bundle"]


def evaluate_bundle(
    bundle: BundleArgument,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="One folder per class, or train/ test/; a CSV of path,label[,split]; WebDataset.",
        ),
    ],
    split: Annotated[str | None, typer.Option(help="Which split of DATA [test].")] = None,
    adapter: Annotated[str | None, typer.Option(help="Which adapter of a bank.")] = None,
    backend: Backend = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Images for each run.")] = 8,
    allow_outside: AllowOutside = False,
    threads: Threads = None,
    trust_engines: TrustEngines = False,
    as_json: AsJson = False,
) -> None:
    """Measure top-1 and top-5 on a folder of classes."""
    from vptkit.progress import progress
    from vptkit.runtime.evaluation.accuracy import evaluate
    from vptkit.runtime.session.factory import open_session

    session = open_session(bundle, backend, threads, trust_engines=trust_engines)
    announce(session, backend)
    with progress("eval") as bar:
        result = evaluate(
            session,
            data,
            adapter=adapter,
            split=split,
            allow_outside=allow_outside,
            batch=batch,
            progress=bar,
        )
    emit({"bundle": str(bundle), "backend": session.backend, **result.to_json()}, as_json)
