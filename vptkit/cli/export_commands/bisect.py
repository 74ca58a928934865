"""`vptkit bisect`: the smallest set of fp32 islands that passes the gate.

No future import of annotations here: typer reads them at run time.
"""

from pathlib import Path
from typing import Annotated

import typer

from vptkit.cli.shared.options import AllowOutside, AsJson, Threads
from vptkit.cli.shared.output import emit, require_onnx
from vptkit.cli.shared.precision_evidence import lowering_of, require_fp32, runner
from vptkit.errors import VptkitError
from vptkit.shown_text import shown

__all__ = ["bisect"]


def bisect(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="An fp32 bundle, NAME.vptk.")],
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Images to judge by: classes, splits or plain.")
    ],
    precision: Annotated[str, typer.Option(help="fp16, bf16, int8 or fp8")] = "fp16",
    target: Annotated[str, typer.Option(help="cpu, tensorrt, or auto")] = "auto",
    calibration: Annotated[
        Path | None, typer.Option(help="Images for int8/fp8 ranges [DATA's train split].")
    ] = None,
    calibration_images: Annotated[int, typer.Option(min=1, help="At most so many.")] = 64,
    images: Annotated[int, typer.Option(min=1, help="At most so many of DATA.")] = 256,
    island: Annotated[list[str] | None, typer.Option(help="Kept in fp32 in any case.")] = None,
    min_agreement: Annotated[float | None, typer.Option(help="Bound [by precision].")] = None,
    allow_outside: AllowOutside = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Find the smallest set of parts to keep in fp32, so that a precision passes its gate."""
    from vptkit.formats.bundle import open_bundle
    from vptkit.progress import progress

    opened = open_bundle(bundle)
    require_fp32(opened)
    if precision not in ("fp16", "bf16", "int8", "fp8"):
        raise VptkitError(f"--precision {precision!r}: expected fp16, bf16, int8 or fp8")
    require_onnx("bisect")
    wanted = lowering_of(
        precision=precision,
        target=target,
        islands=tuple(island or ()),
        auto_islands=True,
        min_agreement=min_agreement,
    )
    from vptkit.export.graph.onnx_file import read_model
    from vptkit.export.numerics.evidence import Evidence
    from vptkit.export.precision.island_search import find_islands
    from vptkit.runtime.evaluation.image_batches import open_image_batches

    ranges = None
    if precision in ("int8", "fp8"):
        ranges = open_image_batches(
            calibration or data,
            opened.preprocess,
            split="train",
            limit=calibration_images,
            labels=opened.labels,
            allow_outside=allow_outside,
        )
    gate = open_image_batches(
        data,
        opened.preprocess,
        limit=images,
        without=ranges,
        labels=opened.labels,
        allow_outside=allow_outside,
    )
    evidence = Evidence(run=runner(opened.preprocess, threads), calibration=ranges, gate=gate)
    with progress("bisect") as bar:
        found = find_islands(read_model(opened), wanted, evidence, lambda text: bar.update(1, text))
    document = {"bundle": str(bundle), "precision": precision, **found.to_json()}
    flags = document["flags"] or "(none needed)"
    gate_text = f"top-1 agreement {found.gate.agreement:.2%} of {found.gate.count} images"
    emit(document, as_json, text=f"{shown(flags)}\n{gate_text}; {found.trials} graphs tried")
