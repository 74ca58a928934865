"""`vptkit check`: golden answers, the reference, overflow, and what TensorRT makes of the graph.

No future import of annotations here: typer reads them at run time.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from vptkit.cli.shared.options import (
    AllowOutside,
    AsJson,
    Backend,
    BundleArgument,
    Columns,
    Decode,
    OneAdapter,
    SkipBroken,
    Threads,
    TrustEngines,
    Verbose,
)
from vptkit.cli.shared.output import announce, emit, needs_extra, require_onnx
from vptkit.cli.shared.precision_evidence import open_or_simulate, require_fp32, runner
from vptkit.errors import VptkitError

__all__ = ["check", "report_overflow"]


def check(
    bundle: BundleArgument,
    backend: Backend = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Compare with the torch reference instead.")
    ] = False,
    weights: Annotated[
        Path | None, typer.Option(help="The backbone's weights, for --reference [timm's].")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Largest difference over largest logit [by precision].")
    ] = None,
    adapter: OneAdapter = None,
    oracle: Annotated[
        str | None,
        typer.Option(help="Ask what TensorRT makes of the graph instead: trt-rtx or rules."),
    ] = None,
    sm: Annotated[
        str | None, typer.Option(help="Of --oracle trt-rtx: GPU kinds [86,89,120].")
    ] = None,
    trt: Annotated[
        str | None, typer.Option(help="Of --oracle rules: versions, as 8.6,10.3 [all].")
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="With --oracle trt-rtx: every layer.")
    ] = False,
    overflow: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA", help="Largest magnitudes on real images, and fp16's headroom."
        ),
    ] = None,
    columns: Columns = None,
    skip_broken: SkipBroken = False,
    decode: Decode = None,
    allow_outside: AllowOutside = False,
    threads: Threads = None,
    trust_engines: TrustEngines = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Compare a bundle's answers with its golden ones, and its files with their digests."""
    if overflow is not None:
        reading = {
            "allow_outside": allow_outside,
            "columns": columns,
            "skip_broken": skip_broken,
            "decode": decode,
        }
        report_overflow(bundle, overflow, threads, as_json, **reading)
        return
    if columns is not None or skip_broken or decode is not None:
        raise typer.BadParameter(
            "goes with --overflow only", param_hint="--columns, --skip-broken, --decode"
        )
    if oracle is not None:
        from vptkit.cli.texts.oracle_report import consult

        consult(bundle, oracle, sm=sm, trt=trt, layers=layers, as_json=as_json)
        return
    from vptkit.runtime.evaluation.parity import check_golden, parity_verdict, require_parity

    if weights is not None and not reference:
        raise typer.BadParameter("goes with --reference only", param_hint="--weights")
    session, imitated = open_or_simulate(bundle, backend, threads, trust_engines=trust_engines)
    announce(session, backend)
    if reference:
        parity = _check_reference(session, weights, tolerance)
    else:
        parity = check_golden(session, adapter=adapter, tolerance=tolerance)
    answered = {"bundle": str(bundle), "backend": session.backend, "simulated": imitated}
    document = {**answered, **parity.to_json()}
    if as_json or parity.ok:
        verdict = parity_verdict(parity, "simulated" if imitated else session.backend)
        emit(document, as_json, text=verdict, verbose=verbose)
    elif verbose:
        emit(document, as_json)
    require_parity(session, parity)


def _check_reference(session: Any, weights: Path | None, tolerance: float | None) -> Any:
    """Logits, features, or both beside the reference's, on the golden images (else on noise)."""
    from vptkit.formats.adapter import parse_adapter
    from vptkit.formats.bundle import ADAPTER, FEATURES, LOGITS
    from vptkit.runtime.evaluation.parity import check_features, check_logits, with_features
    from vptkit.runtime.measure.timing import random_images
    from vptkit.scores.feature_distance import unit_length

    bundle = session.bundle
    if bundle.layout == "bank":
        raise VptkitError(
            f"{bundle.path}: a bank holds its adapters' rows, not the adapters that --reference "
            "needs. Without --reference its golden answers are checked."
        )

    with needs_extra("tune", "--reference"):
        from vptkit.tune.backbone.reference import reference_answers
    golden = bundle.golden()
    images = random_images(8, bundle.preprocess.size) if golden is None else golden[0]
    adapter = parse_adapter(bundle.read(ADAPTER), bundle.path / ADAPTER)
    asked = [name for name in (LOGITS, FEATURES) if name in bundle.outputs]
    answers = reference_answers(adapter, weights, images, asked)
    if FEATURES in answers and bundle.normalized:
        answers[FEATURES] = unit_length(answers[FEATURES])
    if LOGITS not in answers:
        return check_features(session, images, answers[FEATURES], tolerance=tolerance)
    parity = check_logits(session, images, answers[LOGITS], tolerance=tolerance)
    if FEATURES not in answers:
        return parity
    return with_features(parity, session, images, answers[FEATURES])


def report_overflow(
    bundle: Path,
    data: Path,
    threads: int | None,
    as_json: bool,
    **reading: Any,
) -> None:
    """`vptkit check --overflow DATA`: the largest magnitude of everything, block by block."""
    from vptkit.formats.bundle import open_bundle
    from vptkit.formats.manifest_schema import MULTILABEL
    from vptkit.images.broken_images import skipped_text
    from vptkit.progress import progress
    from vptkit.shown_text import tell

    opened = open_bundle(bundle)
    require_fp32(opened)
    require_onnx("check --overflow")
    from vptkit.export.graph.onnx_file import read_model
    from vptkit.export.numerics.fp16_overflow import KINDS, overflow_map
    from vptkit.export.precision.pixel_centring import centre_pixels
    from vptkit.runtime.evaluation.image_batches import open_image_batches

    several = opened.task == MULTILABEL
    images = open_image_batches(data, opened.preprocess, several=several, **reading)
    if images.skipped:
        tell(f"note: {skipped_text(data, images.skipped)}")
    model = read_model(opened)
    centre_pixels(model)
    with progress("overflow", total=images.count) as bar:
        found = overflow_map(model, runner(opened.preprocess, threads), images, bar.update)
    document = {"bundle": str(bundle), "decode": images.decode, **found.to_json()}
    header = ["block", *KINDS, "headroom"]
    rows = [[_cell(row[name]) for name in header] for row in document["blocks"]]
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in [header, *rows]
    ]
    islands = ", ".join(document["islands"]) or "none"
    lines.append(
        f"largest: {document['worst']} {document['largest']:.4g} on {found.count} images; "
        f"islands that fp16 needs: {islands}"
    )
    emit(document, as_json, text="\n".join(lines))


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
