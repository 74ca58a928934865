"""`vptkit export`: an adapter and its backbone become a bundle.

No future import of annotations here: typer reads them at run time.
"""

from pathlib import Path
from typing import Annotated

import typer

from vptkit.cli.shared.options import (
    AllowOutside,
    AsJson,
    Float,
    Force,
    Int,
    Threads,
    Weights,
    option,
    require_choice,
)
from vptkit.cli.shared.output import emit, require_onnx
from vptkit.cli.shared.precision_evidence import (
    ImageFolders,
    evidence_of,
    lowering_of,
    note_missing_gate,
)
from vptkit.errors import TargetError, VptkitError

__all__ = ["export"]


# What is printed of the manifest
_SHOWN = (
    "name",
    "precision",
    "lowering",
    "gate",
    "layout",
    "batch",
    "fold",
    "folds",
    "macs",
    "parity",
)


def export(
    adapters: Annotated[list[Path], typer.Argument(metavar="ADAPTER", help="NAME.safetensors")],
    output: Annotated[Path, typer.Option("-o", "--output", help="NAME.vptk, a folder")],
    weights: Weights = None,
    layout: Annotated[
        str, typer.Option(help="baked: one adapter, constants; bank: many, looked up.")
    ] = "baked",
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16, int8 or fp8")] = "fp32",
    target: Annotated[
        str, typer.Option(help="cpu, tensorrt, or auto: cpu for fp32 and int8, else tensorrt")
    ] = "auto",
    calibration: Annotated[
        Path | None, typer.Option(help="Images for int8/fp8 ranges and fp16's overflow map.")
    ] = None,
    gate: Annotated[
        Path | None, typer.Option(help="Images to judge by [those --calibration leaves over].")
    ] = None,
    calibration_images: Annotated[int, typer.Option(min=1, help="At most so many.")] = 128,
    island: Annotated[
        list[str] | None,
        typer.Option(help="Part kept in fp32, as blocks.3.mlp; may be repeated."),
    ] = None,
    islands: Annotated[
        bool, typer.Option(help="Keep in fp32 what fp16 cannot hold; else refuse.")
    ] = True,
    min_agreement: Annotated[
        Float, option("Gate's bound on top-1 agreement [fp16 0.995, int8 0.985].")
    ] = None,
    allow_outside: AllowOutside = False,
    threads: Threads = None,
    input: Annotated[
        str, typer.Option(help="uint8 (B H W 3) or float32 (B 3 H W, normalised)")
    ] = "uint8",
    batch: Annotated[str, typer.Option(help="A number, or dynamic.")] = "dynamic",
    fold: Annotated[str, typer.Option(help="all, or none: the graph others would export")] = "all",
    last_block: Annotated[
        str, typer.Option(help="With token pooling: auto, absorbed, query or full")
    ] = "auto",
    bank_prompts: Annotated[Int, option("Room of a bank [the most of the adapters].")] = None,
    bank_classes: Annotated[Int, option("Room of a bank [the most of the adapters].")] = None,
    bank_layer_norms: Annotated[
        str, typer.Option(help="Whether a bank looks up LayerNorms: auto, yes or no")
    ] = "auto",
    verify: Annotated[
        bool, typer.Option(help="Compare with the adapter's golden answers before finishing.")
    ] = True,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Compile an adapter and its backbone into one folded ONNX bundle."""
    require_choice("--layout", layout, ("baked", "bank"))
    require_choice("--bank-layer-norms", bank_layer_norms, ("auto", "yes", "no"))
    require_choice("--precision", precision, ("fp32", "fp16", "bf16", "int8", "fp8"))
    require_choice("--target", target, ("auto", "cpu", "tensorrt"))
    require_choice("--input", input, ("uint8", "float32"))
    require_choice("--fold", fold, ("all", "none"))
    require_choice("--last-block", last_block, ("auto", "absorbed", "query", "full"))
    if len(adapters) != 1 and layout == "baked":
        raise VptkitError(
            f"{len(adapters)} adapters given: several in one bundle need --layout bank. A baked "
            "bundle holds one."
        )
    if batch != "dynamic" and not (batch.isdecimal() and int(batch) > 0):
        raise VptkitError(f"--batch {batch!r}: expected a number above 0, or dynamic")
    require_onnx("export")
    from vptkit.export import ExportOptions
    from vptkit.export import export as run_export

    lowering = lowering_of(
        precision=precision,
        target=target,
        islands=tuple(island or ()),
        auto_islands=islands,
        min_agreement=min_agreement,
    )
    folders = ImageFolders(calibration, gate, calibration_images, allow_outside)
    options = ExportOptions(
        input=input,  # type: ignore[arg-type]
        batch=None if batch == "dynamic" else int(batch),
        fold=fold,  # type: ignore[arg-type]
        last_block=last_block,  # type: ignore[arg-type]
        lowering=lowering,
    )
    if layout == "bank":
        if gate is not None or calibration is not None:
            raise TargetError(
                "--gate and --calibration do not go with --layout bank yet: judge each adapter's "
                "own bundle (--layout baked) in this precision."
            )
        from vptkit.export import BankOptions, export_bank

        manifest = export_bank(
            adapters,
            output,
            weights=weights,
            options=options,
            bank=BankOptions(
                prompts=bank_prompts,
                classes=bank_classes,
                layer_norms=bank_layer_norms,  # type: ignore[arg-type]
            ),
            force=force,
            verify=verify,
        )
        document = {"bundle": str(output), **{key: manifest[key] for key in _SHOWN}}
        document["adapters"] = [entry["name"] for entry in manifest["adapters"]]
        emit(document, as_json)
        return
    manifest = run_export(
        adapters[0],
        output,
        weights=weights,
        options=options,
        force=force,
        verify=verify,
        evidence=None if precision == "fp32" else evidence_of(folders, threads),
    )
    note_missing_gate(manifest)
    document = {"bundle": str(output), **{key: manifest[key] for key in _SHOWN}}
    emit(document, as_json)
