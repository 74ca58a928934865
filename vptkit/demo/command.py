"""`vptkit demo`: the command.

No future import of annotations here: typer reads them at run time.
"""

from pathlib import Path
from typing import Annotated

import typer

from vptkit.cli.shared.options import (
    AllowOutside,
    AsJson,
    Columns,
    Force,
    Int,
    SkipBroken,
    Threads,
    Weights,
    option,
)
from vptkit.cli.shared.output import emit, require_tune
from vptkit.shown_text import shown

__all__ = ["demo"]


def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for everything the demo makes.")
    ] = Path("vptkit-demo"),
    data: Annotated[
        Path | None, typer.Option(help="Your own class folders [handwritten digits].")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="timm model name [a small embedded ViT].")
    ] = None,
    weights: Weights = None,
    image_size: Annotated[Int, option("Input size in pixels [the model's].")] = None,
    epochs: Annotated[
        int, typer.Option(min=1, help="For each method; 8 are four times as long.")
    ] = 2,
    columns: Columns = None,
    skip_broken: SkipBroken = False,
    allow_outside: AllowOutside = False,
    threads: Threads = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Tune, export, check and profile the default and four methods, and write a report."""
    require_tune("demo")
    from .report import DemoSettings, demo_table
    from .run_demo import run_demo

    settings = DemoSettings(
        output=output,
        data=data,
        backbone=backbone,
        weights=weights,
        image_size=image_size,
        epochs=epochs,
        threads=threads,
        allow_outside=allow_outside,
        columns=columns,
        skip_broken=skip_broken,
    )
    document = run_demo(settings, force=force)
    emit(document, as_json, text=f"{demo_table(document)}\nreport: {shown(document['report'])}")
