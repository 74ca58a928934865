"""`vptkit inspect`: what an adapter file or a bundle is.

No future import of annotations here: typer reads them at run time.
"""

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer

from vptkit.cli.shared.options import AsJson
from vptkit.cli.shared.output import emit
from vptkit.errors import VptkitError

__all__ = ["inspect"]


def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="An adapter file, a bundle or an engine.")
    ],
    everything: Annotated[
        bool, typer.Option("--all", "--verbose", help="Print all that is in it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what an adapter file or a bundle is."""
    from vptkit.cli.shared.inspect_text import inspect_text
    from vptkit.formats.summary import summarize

    document = summarize(path)
    if as_json or everything:
        emit(document, as_json)
    elif document["kind"] == "bundle":
        emit(document, as_json, text=inspect_text(document, *_beside(path)))
    else:
        emit(document, as_json, text=inspect_text(document))


def _beside(path: Path) -> tuple[dict[str, Any], list[str]]:
    """How a bundle's adapter was made, and its engines; nothing of what cannot be read."""
    from vptkit.formats.adapter import parse_adapter
    from vptkit.formats.bundle import ADAPTER, open_bundle
    from vptkit.runtime.backends.engine_cache import list_engines

    bundle = open_bundle(path, verify=False)  # it was verified just now
    train, engines = {}, []
    with contextlib.suppress(VptkitError):
        if ADAPTER in bundle.manifest["files"]:
            train = parse_adapter(bundle.read(ADAPTER), path / ADAPTER).train
    with contextlib.suppress(VptkitError, OSError):
        engines = [_engine_name(engine.record) for engine in list_engines(bundle)]
    return train, engines


def _engine_name(record: dict[str, Any]) -> str:
    gpu = record.get("gpu") or f"compute capability {record.get('capability')}"
    return f"{record.get('library')} {record.get('version')} for {gpu}"
