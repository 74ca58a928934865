"""What the command line assembles for precisions below fp32: images, a runner, bisect.

No future import of annotations here: typer reads them at run time.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from vptkit.cli_make import AsJson, Threads, emit
from vptkit.errors import MissingExtraError, TargetError, VptkitError

__all__ = ["bisect", "evidence_of", "lowering_of", "note_missing_gate", "overflow"]


class ImageFolders(NamedTuple):
    """Folders of real images: for calibration, for the gate, and how many of the first."""

    calibration: Path | None
    gate: Path | None
    calibration_images: int = 128


def lowering_of(**settings: Any) -> Any:
    """`export.lower.Lowering` of the command line's settings.

    Raises:
        VptkitError: an island that is no part of a network, or a bound outside 0..1.
    """
    import re

    from vptkit.export.lower import Lowering

    for name in settings["islands"]:
        if not re.fullmatch(r"patch|head|blocks|blocks\.\d+(\.(attn|mlp|residual))?", name):
            raise VptkitError(
                f"--island {name!r}: expected patch, head, blocks, blocks.N, blocks.N.attn, "
                "blocks.N.mlp or blocks.N.residual"
            )
    bound = settings["min_agreement"]
    if bound is not None and not 0 <= bound <= 1:
        raise VptkitError(f"--min-agreement {bound}: expected a share from 0 to 1")
    return Lowering(**settings)


def evidence_of(folders: ImageFolders, threads: int | None) -> Callable[[Any], Any]:
    """A function that gives an adapter's images and a runner to the exporter.

    With --calibration alone, the images that calibration leaves over are the gate's.
    """

    def evidence(adapter: Any) -> Any:
        from vptkit.export.evidence import Evidence

        run = runner(adapter.preprocess, threads)
        if folders == (None, None, folders.calibration_images):
            return Evidence(run=run)
        from vptkit.errors import DataError
        from vptkit.runtime.batches import image_batches

        common = {"labels": adapter.labels}
        calibration = gate = None
        if folders.calibration is not None:
            calibration = image_batches(
                folders.calibration,
                adapter.preprocess,
                split="train",
                limit=folders.calibration_images,
                **common,
            )
        if folders.gate is not None:
            gate = image_batches(folders.gate, adapter.preprocess, **common, without=calibration)
        elif folders.calibration is not None:
            try:
                gate = image_batches(
                    folders.calibration,
                    adapter.preprocess,
                    split="train",
                    without=calibration,
                    **common,
                )
            except DataError:  # calibration took them all
                gate = None
        return Evidence(run=run, calibration=calibration, gate=gate)

    return evidence


def runner(preprocess: Any, threads: int | None) -> Callable[[Any], Any]:
    """What opens graphs for the exporter: ONNX Runtime on the processor.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """

    def run(model: Any) -> Any:
        from vptkit.export.model_file import write_model

        try:
            from vptkit.runtime.probe import OrtProbe
        except ModuleNotFoundError as error:
            if error.name != "onnxruntime":
                raise
            raise MissingExtraError("onnxruntime", "cpu", "judging a precision") from error
        return OrtProbe(lambda path: write_model(model, path), preprocess, threads=threads)

    return run


def open_or_simulate(bundle: Path, backend: str = "cpu", threads: int | None = None) -> Any:
    """A session, and whether it simulates types that the CPU provider cannot compute.

    Raises:
        MissingExtraError: the simulation needs onnx, which is not installed.
    """
    import tempfile
    from dataclasses import replace

    from vptkit.bundle import open_bundle
    from vptkit.runtime.session import open_session

    if backend != "cpu" or open_bundle(bundle, verify=False).precision not in ("bf16", "fp8"):
        return open_session(bundle, backend, threads), False
    try:
        from vptkit.export.simulate import write_simulated
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise MissingExtraError("onnx", "export", "simulating a precision") from error
    with tempfile.TemporaryDirectory(prefix="vptkit-") as folder:
        write_simulated(bundle, Path(folder))
        session: Any = open_session(folder, backend, threads)
    return replace(session, bundle=open_bundle(bundle)), True


def note_missing_gate(manifest: dict[str, Any]) -> None:
    """Say so where a lower precision was not judged on real images."""
    if manifest["precision"] != "fp32" and manifest["gate"] is None:
        typer.echo(
            f"note: {manifest['precision']} was not compared with fp32 on real images; "
            "--gate DIR does that",
            err=True,
        )
    plan = manifest["lowering"] or {}
    if plan.get("islands"):
        typer.echo(f"note: kept in fp32: {', '.join(plan['islands'])}", err=True)
    for finding in plan.get("placement", ())[:3]:
        typer.echo(f"note: {finding}", err=True)


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
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Find the smallest set of parts to keep in fp32, so that a precision passes its gate."""
    from vptkit.bundle import open_bundle
    from vptkit.progress import progress

    opened = open_bundle(bundle)
    _require_fp32(opened)
    if precision not in ("fp16", "bf16", "int8", "fp8"):
        raise VptkitError(f"--precision {precision!r}: expected fp16, bf16, int8 or fp8")
    wanted = lowering_of(
        precision=precision,
        target=target,
        islands=tuple(island or ()),
        auto_islands=True,
        min_agreement=min_agreement,
    )
    onnx = _onnx("bisect")
    from vptkit.export.bisect import find_islands
    from vptkit.export.evidence import Evidence
    from vptkit.runtime.batches import image_batches

    ranges = None
    if precision in ("int8", "fp8"):
        ranges = image_batches(
            calibration or data,
            opened.preprocess,
            split="train",
            limit=calibration_images,
            labels=opened.labels,
        )
    gate = image_batches(
        data, opened.preprocess, limit=images, without=ranges, labels=opened.labels
    )
    evidence = Evidence(run=runner(opened.preprocess, threads), calibration=ranges, gate=gate)
    with progress("bisect") as bar:
        found = find_islands(
            onnx.load(opened.model), wanted, evidence, lambda text: bar.update(1, text)
        )
    document = {"bundle": str(bundle), "precision": precision, **found.to_json()}
    flags = document["flags"] or "(none needed)"
    gate_text = f"top-1 agreement {found.gate.agreement:.2%} of {found.gate.count} images"
    emit(document, as_json, text=f"{flags}\n{gate_text}; {found.trials} graphs tried")


def overflow(bundle: Path, data: Path, threads: int | None, as_json: bool) -> None:
    """`vptkit check --overflow DATA`: the largest magnitude of everything, block by block."""
    from vptkit.bundle import open_bundle
    from vptkit.progress import progress

    opened = open_bundle(bundle)
    _require_fp32(opened)
    onnx = _onnx("check --overflow")
    from vptkit.export.overflow import KINDS, overflow_map
    from vptkit.export.pixels import centre_pixels
    from vptkit.runtime.batches import image_batches

    images = image_batches(data, opened.preprocess)
    model = onnx.load(opened.model)
    centre_pixels(model)
    with progress("overflow", total=images.count) as bar:
        found = overflow_map(model, runner(opened.preprocess, threads), images, bar.update)
    document = {"bundle": str(bundle), **found.to_json()}
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


def _require_fp32(bundle: Any) -> None:
    if bundle.precision != "fp32":
        raise TargetError(
            f"{bundle.path}: the bundle is {bundle.precision}; expected fp32, which says what the "
            "values really are. Export it again without --precision."
        )


def _onnx(purpose: str) -> Any:
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnx", "export", purpose) from error
    return onnx
