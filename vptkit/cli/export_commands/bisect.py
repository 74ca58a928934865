"""`vptkit bisect`: the smallest set of fp32 islands that passes the gate.

No future import of annotations here: typer reads them at run time.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from vptkit.cli.shared.option_effect import given_options, require_effect
from vptkit.cli.shared.options import (
    AllowOutside,
    AsJson,
    Columns,
    Decode,
    SkipBroken,
    Threads,
    Verbose,
    require_choices,
)
from vptkit.cli.shared.output import emit, require_onnx
from vptkit.cli.shared.precision_evidence import (
    lowering_of,
    require_fp32,
    runner,
    warn_of_kindness,
)
from vptkit.cli.shared.verdict import next_command, options_again
from vptkit.shown_text import shown
from vptkit.text_table import fields

from .export_verdict import gate_text
from .option_rules import BISECT_RULES

__all__ = ["bisect"]

# What export does not take over from a search.
_OWN = ("precision", "images", "island", "calibration", "verbose", "as_json")
# Islands are chosen by these images, and test is not for choosing.
_CHOOSING = ("val", "test", "ood", "", "train")


def bisect(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="An fp32 bundle, NAME.vptk.")],
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Images to judge by: classes, splits or plain.")
    ],
    precision: Annotated[str, typer.Option(help="fp16, bf16, int8 or fp8")] = "fp16",
    target: Annotated[
        str | None, typer.Option(help="Of int8: cpu, tensorrt, or auto [auto: cpu].")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Images for int8/fp8 ranges [DATA's train split].")
    ] = None,
    calibration_images: Annotated[
        int | None, typer.Option(min=1, help="At most so many [64].")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="At most so many of DATA.")] = 256,
    island: Annotated[list[str] | None, typer.Option(help="Kept in fp32 in any case.")] = None,
    min_agreement: Annotated[float | None, typer.Option(help="Bound [by precision].")] = None,
    columns: Columns = None,
    skip_broken: SkipBroken = False,
    decode: Decode = None,
    allow_outside: AllowOutside = False,
    threads: Threads = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Find the smallest set of parts to keep in fp32, so that a precision passes its gate."""
    from vptkit.formats.bundle import open_bundle
    from vptkit.progress import progress

    settings = dict(locals())
    opened = open_bundle(bundle)
    require_fp32(opened)
    require_choices("bisect", settings)
    require_effect(given_options(context), settings, BISECT_RULES)
    require_onnx("bisect")
    wanted = lowering_of(
        precision=precision,
        target=target or "auto",
        islands=tuple(island or ()),
        auto_islands=True,
        min_agreement=min_agreement,
    )
    from vptkit.cli.shared.judging_images import Asked, judging_images
    from vptkit.export.graph.onnx_file import read_model
    from vptkit.export.precision.island_search import find_islands
    from vptkit.progress import no_phases

    asked = Asked(
        calibration=(calibration or data) if precision in ("int8", "fp8") else None,
        gate=data,
        most=calibration_images or 64,
        most_gate=images,
        order=_CHOOSING,
        allow_outside=allow_outside,
        columns=columns,
        skip_broken=skip_broken,
        decode=decode,
    )
    judging = judging_images(asked, _tuned(opened))
    evidence = judging.evidence(runner(opened.preprocess, threads), no_phases)
    with progress("bisect") as bar:
        found = find_islands(
            read_model(opened),
            wanted,
            evidence,
            lambda text: bar.update(1, text),
            opened.thresholds_of(None),
        )
    document = {
        "bundle": str(bundle),
        "precision": precision,
        **found.to_json(),
        "calibration": evidence.calibration_record(),
    }
    warn_of_kindness(document["gate"])
    ranges = [] if asked.calibration is None else ["--calibration", asked.calibration]
    again = [*_merging(opened.manifest), *options_again(context, _OWN), *ranges, "--gate", data]
    text = _verdict(document, opened.name, again)
    emit(document, as_json, text=f"{text}\n\n{fields(document)}" if verbose else text)


def _tuned(bundle: Any) -> Any:
    """What the bundle's adapter says of its training, if the bundle has it."""
    from vptkit.cli.shared.judging_images import Tuned
    from vptkit.formats.adapter import parse_adapter
    from vptkit.formats.bundle import ADAPTER

    record: dict[str, Any] = {}
    if ADAPTER in bundle.manifest["files"]:
        record = parse_adapter(bundle.read(ADAPTER), bundle.path / ADAPTER).train
    return Tuned(bundle.labels, bundle.preprocess, record, bundle.task)


def _merging(manifest: dict[str, Any]) -> list[object]:
    """The options with which export merges tokens as it did here."""
    merging = manifest.get("merging")
    if merging is None or merging["tuned"]:
        return []
    return ["--merge", merging["asked"], "--merge-attention", merging["attention"]]


def _verdict(document: dict[str, Any], name: str, again: list[object]) -> str:
    """Islands as options of export first, ready to be pasted."""
    flags, gate = document["flags"], document["gate"]
    kept = "no island" if not flags else f"{len(document['islands'])} islands"
    command = ["export", f"{name}.safetensors", "--precision", document["precision"]]
    return "\n".join(
        [
            shown(flags or "(none needed)"),
            f"{kept}, {document['trials']} graphs tried",
            gate_text(document["precision"], gate),
            next_command(*command, *flags.split(), *again),
        ]
    )
