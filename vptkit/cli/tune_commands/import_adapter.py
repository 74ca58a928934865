"""`vptkit import`: what other code trained, as an adapter file.

No future import of annotations here: typer reads them at run time.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from vptkit.cli.shared.options import AsJson, Force, Settings, Verbose, Weights, backbone_args
from vptkit.cli.shared.output import emit, require_tune
from vptkit.cli.shared.verdict import next_command, wrote
from vptkit.text_table import fields

__all__ = ["import_"]


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A checkpoint of tensors; of PEFT its folder or its file."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="NAME.safetensors")],
    layout: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="vpt, bpt, e2vpt, ssf or repadapter (the authors' code), peft (LoRA and what else "
            "merges), "
            "linear (a head alone, as DINOv2's) [peft, if FILE is its folder].",
        ),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="timm model name [that of a folder of weights].")
    ] = None,
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
        str | None, typer.Option(help="authors or model [vpt, e2vpt, bpt: authors; else model].")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the adapter [the file's].")] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="repadapter: that of the configuration it was trained with."),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Turn prompts of VPT's or BPT's code, a PEFT adapter or a linear head into an adapter file."""
    require_tune("import")
    from vptkit.checkpoints.proposed_backbone import named_backbone
    from vptkit.tune.importers.import_adapter import ImportConfig, import_adapter

    name_of, arguments = named_backbone(backbone, backbone_args(settings, image_size), weights)

    config = ImportConfig(
        layout=layout,  # type: ignore[arg-type]  # these three are checked there
        backbone=name_of,
        backbone_args=arguments,
        weights=weights,
        head=head,
        labels=labels,
        pool=pool,  # type: ignore[arg-type]
        preprocess=preprocess,  # type: ignore[arg-type]
        name=name,
        scale=scale,
    )
    document = import_adapter(file, output, config, force=force)
    if as_json:
        emit(document, as_json)
        return
    given = [] if weights is None else ["--weights", weights]
    lines = [_verdict(document), wrote(output)]
    lines += [next_command("export", output, *given, "-o", output.with_suffix(".vptk"))]
    emit(document, as_json, text="\n".join(lines) + (f"\n\n{fields(document)}" if verbose else ""))


def _verdict(document: dict[str, Any]) -> str:
    """As "from bpt: 20 prompts (deep) and a head of 5 classes; 148 frozen tensors are the backbone's".

    Or "from peft: 25 LayerNorms, lora in 24 tensors and a head of 5 classes".
    """
    norms, prompts = document["layer_norms"], document["prompts"]
    parts = [f"{prompts} prompts ({document['insert']})"] if prompts else []
    parts += [f"{norms} LayerNorms"] if norms else []
    changed = document["changed_tensors"]
    parts += [f"{document['method']} in {changed} tensors"] if changed else []
    parts += [f"a head of {document['classes']} classes"]
    compared = document["backbone_compared"]
    same = f"; its {compared} frozen tensors are the backbone's" if compared else ""
    listed = " and ".join([*([", ".join(parts[:-1])] if parts[:-1] else []), parts[-1]])
    return f"from {document['format']}: {listed}{same}"
