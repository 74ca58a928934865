"""`vptkit import`: prompts, LayerNorms and heads that other code trained, as an adapter file.

No future import of annotations here: typer reads them at run time.
"""

from pathlib import Path
from typing import Annotated

import typer

from vptkit.cli.shared.options import AsJson, Force, Settings, Weights, backbone_args
from vptkit.cli.shared.output import emit, require_tune

__all__ = ["import_"]


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A checkpoint of tensors; for peft-ln its folder or its file."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="NAME.safetensors")],
    layout: Annotated[
        str,
        typer.Option(
            "--format",
            help="vpt or bpt (the authors' code), peft-ln (PEFT's LayerNorm adapters), linear (a "
            "head alone, as DINOv2's).",
        ),
    ],
    backbone: Annotated[str, typer.Option(help="timm model name.")],
    weights: Weights = None,
    settings: Settings = None,
    image_size: Annotated[int | None, typer.Option(help="Input size [the model's].")] = None,
    head: Annotated[
        Path | None, typer.Option(help="File with the head's weight and bias, if FILE has none.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Text file, one class name a line [numbers].")
    ] = None,
    pool: Annotated[
        str | None, typer.Option(help="token, avg_prompts, avg or token+avg [what FILE tells].")
    ] = None,
    preprocess: Annotated[
        str | None, typer.Option(help="authors or model [vpt, bpt: authors; else model].")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the adapter [the file's].")] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Turn prompts of VPT's or BPT's code, PEFT's LayerNorms or a linear head into an adapter file."""
    require_tune("import")
    from vptkit.tune.importers.import_adapter import ImportConfig, import_adapter

    config = ImportConfig(
        layout=layout,  # type: ignore[arg-type]  # these three are checked there
        backbone=backbone,
        backbone_args=backbone_args(settings, image_size),
        weights=weights,
        head=head,
        labels=labels,
        pool=pool,  # type: ignore[arg-type]
        preprocess=preprocess,  # type: ignore[arg-type]
        name=name,
    )
    emit(import_adapter(file, output, config, force=force), as_json)
