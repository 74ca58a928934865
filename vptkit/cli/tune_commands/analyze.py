"""`vptkit analyze`: how bursty a backbone's tokens and an adapter's prompts are.

No future import of annotations here: typer reads them at run time.
"""

import statistics
from pathlib import Path
from typing import Annotated, Any

import typer

from vptkit.cli.shared.options import (
    AllowOutside,
    AsJson,
    Columns,
    Force,
    Settings,
    SkipBroken,
    Threads,
    Weights,
    backbone_args,
)
from vptkit.cli.shared.output import emit, require_tune
from vptkit.cli.shared.verdict import next_command, wrote

__all__ = ["analyze"]


def analyze(
    backbone: Annotated[str, typer.Argument(metavar="BACKBONE", help="timm model name.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Images, as of vptkit tune.")],
    weights: Weights = None,
    settings: Settings = None,
    image_size: Annotated[
        int | None, typer.Option(help="Input size [the adapter's, else the model's].")
    ] = None,
    adapter: Annotated[
        list[Path] | None,
        typer.Option(
            help="NAME.safetensors with prompts; may be repeated. The first one's backbone_args hold."
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Training images.")] = 100,
    out: Annotated[
        Path,
        typer.Option("-o", "--output", "--out", help="Folder for the picture and the JSON file."),
    ] = Path("vptkit-analyze"),
    tap: Annotated[
        str, typer.Option(help="Tokens pre_ln1 (the block's input) or post_ln1.")
    ] = "pre_ln1",
    whiten_floor: Annotated[float, typer.Option(help="Relative floor of eigenvalues.")] = 1e-6,
    seed: Annotated[int, typer.Option(min=0, help="Which images.")] = 0,
    columns: Columns = None,
    skip_broken: SkipBroken = False,
    allow_outside: AllowOutside = False,
    threads: Threads = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Measure burstiness in every block: weights, tokens, their product, whitening, prompts."""
    require_tune("analyze")
    import torch

    from vptkit.formats.adapter import read_adapter
    from vptkit.progress import progress
    from vptkit.tune.burstiness.analyze_burstiness import AnalyzeConfig
    from vptkit.tune.burstiness.analyze_burstiness import analyze as run_analyze

    if threads is not None:
        torch.set_num_threads(threads)
    known = read_adapter(adapter[0]).backbone.args if adapter else {}
    config = AnalyzeConfig(
        backbone=backbone,
        backbone_args={**known, **backbone_args(settings, image_size)},
        weights=weights,
        images=images,
        tap=tap,  # type: ignore[arg-type]  # checked there
        floor=whiten_floor,
        seed=seed,
        allow_outside=allow_outside,
        columns=columns,
        skip_broken=skip_broken,
    )
    with progress("analyze") as bar:
        document = run_analyze(data, out, config, adapter or (), force=force, progress=bar)
    if as_json:
        emit(document, as_json)
        return
    given = [] if weights is None else ["--weights", weights]
    method = ["--method", "bpt", "--form", "fwhiten"]  # which takes what was measured into account
    follows = next_command("tune", data, "--backbone", backbone, *given, *method)
    emit(document, as_json, text="\n".join([_table(document), follows]))


def _table(document: dict[str, Any]) -> str:
    """One line a block: kurtosis and exponent of each quantity, and Σ."""
    from vptkit.shown_text import terminal_width
    from vptkit.text_table import columns

    names = ("weights", "tokens", "products", "whitened")
    header = ["block", *(f"{name} {what}" for name in names for what in ("kurt.", "exp."))]
    rows = []
    for block in document["blocks"]:
        cells = [str(block["block"])]
        for name in names:
            cells.append(f"{block[name]['excess_kurtosis']:.1f}")
            cells.append(f"{block[name]['generalised']['exponent']:.2f}")
        sigma = block["sigma"]
        bound = "≥" if sigma["condition_is_bound"] else ""
        rows.append([*cells, str(sigma["rank"]), f"{bound}{sigma['condition']:.1e}"])
    parts = [columns([*header, "rank", "condition"], rows, width=terminal_width())]
    if prompts := _prompts(document["blocks"]):
        parts.append(columns(["prompts of", "kurt.", "max/rms", "cosine", "whitened"], prompts))
    return "\n".join([*parts, _verdict(document["blocks"]), wrote(*map(Path, document["files"]))])


def _verdict(blocks: list[dict[str, Any]]) -> str:
    """As "products are the burstiest: excess kurtosis 12.3 in the median block (a Gaussian has 0)"."""
    medians = {
        name: statistics.median(block[name]["excess_kurtosis"] for block in blocks)
        for name in ("weights", "tokens", "products", "whitened")
    }
    most = max(medians, key=lambda name: medians[name])
    return (
        f"{most} are the burstiest: excess kurtosis {medians[most]:.1f} in the median block, "
        f"{medians['whitened']:.1f} after whitening (a Gaussian has 0)"
    )


def _prompts(blocks: list[dict[str, Any]]) -> list[list[str]]:
    """One line an adapter: means over its blocks."""
    rows = []
    for name in blocks[0]["prompts"]:
        found = [block["prompts"][name] for block in blocks if name in block["prompts"]]
        cells = []
        for key in ("excess_kurtosis", "max_over_rms", "cosine", "cosine_whitened"):
            values = [one[key] for one in found if key in one]
            cells.append(f"{sum(values) / len(values):.2f}" if values else "-")
        rows.append([name, *cells])
    return rows
