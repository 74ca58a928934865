"""`vptkit export`: an adapter and its backbone become a bundle.

No future import of annotations here: typer reads them at run time.
"""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from vptkit.cli.shared.option_effect import given_options, require_effect
from vptkit.cli.shared.options import (
    AllowOutside,
    AsJson,
    Columns,
    Decode,
    Float,
    Force,
    Int,
    SkipBroken,
    Threads,
    Verbose,
    Weights,
    option,
    require_choices,
)
from vptkit.cli.shared.output import emit, require_onnx
from vptkit.cli.shared.precision_evidence import (
    lowering_of,
    note_missing_gate,
)
from vptkit.cli.shared.verdict import options_again
from vptkit.cli.texts.merging_text import note_merging
from vptkit.errors import TargetError, VptkitError
from vptkit.progress import progress
from vptkit.regular_files import is_folder
from vptkit.text_table import fields

from .export_verdict import (
    bundle_verdict,
    confidence_of,
    note_bank_precision,
    onnx_verdict,
    rejection_report,
)
from .option_rules import EXPORT_RULES
from .output_name import output_path, outputs_of
from .web_export import finish_web, require_web

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
    "merging",
    "outputs",
    "parity",
)
# What a command for the bundle does not take over from one for the graph.
_OF_THE_FILE = ("format", "output", "force", "verbose", "as_json")


def export(
    context: typer.Context,
    adapters: Annotated[
        list[Path],
        typer.Argument(
            metavar="ADAPTER", help="NAME.safetensors; with --target web bundles (NAME.vptk) too."
        ),
    ],
    output: Annotated[
        list[str] | None,
        typer.Option(
            "-o",
            "--output",
            metavar="NAME.vptk|logits|features|both",
            help="A folder [in this folder, by the adapter's name]; and what the graph gives "
            "[logits].",
        ),
    ] = None,
    normalize_features: Annotated[
        bool, typer.Option("--normalize-features", help="Features of length 1.")
    ] = False,
    reject_from: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA", help="With features: what the data is like that it was tuned on."
        ),
    ] = None,
    weights: Weights = None,
    format: Annotated[
        str,
        typer.Option(help="bundle: for vptkit's commands; onnx: the bare graph, NAME.onnx."),
    ] = "bundle",
    layout: Annotated[
        str, typer.Option(help="baked: one adapter, constants; bank: many, looked up.")
    ] = "baked",
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16, int8 or fp8")] = "fp32",
    target: Annotated[
        str,
        typer.Option(
            help="cpu, tensorrt, or auto: cpu for fp32 and int8, else tensorrt; web: a folder with a "
            "page that runs the graph in a browser"
        ),
    ] = "auto",
    onnxruntime_web: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="With --target web: the npm package, unpacked [fetched by npm]."
        ),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Images for int8/fp8 ranges and fp16's overflow map.")
    ] = None,
    gate: Annotated[
        Path | None, typer.Option(help="Images to judge by [val/ of --calibration's data set].")
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
    columns: Columns = None,
    skip_broken: SkipBroken = False,
    decode: Decode = None,
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
    merge: Annotated[
        str | None,
        typer.Option(
            metavar="R|R,R,…|0.7x",
            help="Tokens merged in each block, or a share of the multiply-accumulates [as tuned].",
        ),
    ] = None,
    merge_attention: Annotated[
        str | None,
        typer.Option(
            metavar="proportional|plain",
            help="Whether merged tokens count by their size [as tuned, else proportional].",
        ),
    ] = None,
    min_merge_agreement: Annotated[
        Float, option("Bound on the labels that stay with merged tokens [0.9; none if tuned so].")
    ] = None,
    bank_prompts: Annotated[Int, option("Room of a bank [the most of the adapters].")] = None,
    bank_classes: Annotated[Int, option("Room of a bank [the most of the adapters].")] = None,
    bank_rank: Annotated[Int, option("Room of a bank [the most of the adapters].")] = None,
    bank_layer_norms: Annotated[
        str, typer.Option(help="Whether a bank looks up LayerNorms: auto, yes or no")
    ] = "auto",
    tables: Annotated[
        str,
        typer.Option(
            help="Of a bank: inputs, which can be changed; constant, for servers such as Triton"
        ),
    ] = "inputs",
    verify: Annotated[
        bool, typer.Option(help="Compare with the adapter's golden answers before finishing.")
    ] = True,
    force: Force = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Compile an adapter and its backbone into one folded ONNX bundle."""
    settings = dict(locals())
    require_choices("export", settings)
    _require_sense(settings, len(adapters))
    place, gives = outputs_of(output or ())
    settings["gives"] = gives
    require_effect(given_options(context), settings, EXPORT_RULES)
    made = output_path(
        place, adapters, format="web" if target == "web" else format, bank=layout == "bank"
    )
    if target == "web":
        require_web(settings, given_options(context), made)
    if target == "web" and is_folder(adapters[0]):
        finish_web(adapters, made, settings)
        return
    require_onnx("export")
    from vptkit.export import ExportOptions

    lowering = lowering_of(
        precision=precision,
        target="cpu" if target == "web" else target,
        islands=tuple(island or ()),
        auto_islands=islands,
        min_agreement=min_agreement,
    )
    common = {
        "weights": weights,
        "options": ExportOptions(
            input=input,  # type: ignore[arg-type]
            batch=None if batch == "dynamic" else int(batch),
            fold=fold,  # type: ignore[arg-type]
            last_block=last_block,  # type: ignore[arg-type]
            lowering=lowering,
            output=gives,  # type: ignore[arg-type]
            normalize_features=normalize_features,
            merge=merge,
            merge_attention=merge_attention,  # type: ignore[arg-type]
            min_merge_agreement=min_merge_agreement,
        ),
        "force": force,
        "threads": threads,
        "verify": verify,
        "phase": progress,
    }
    if target == "web":
        _export_web(settings, made, common)
        return
    manifest = _exported(settings, made, common)
    document = _document(manifest, made, format)
    if layout == "baked":
        document["confidence"] = confidence_of(adapters[0])
    if reject_from is not None:
        document["rejection"] = rejection_report(made)
    if format == "onnx":
        asked = () if gives == "logits" else ("--output", gives)
        again = ("export", adapters[0], *options_again(context, _OF_THE_FILE), *asked)
        text = onnx_verdict(document, manifest, made, again, verified=verify)
    else:
        text = bundle_verdict(document, manifest, made, verified=verify)
    emit(document, as_json, text=f"{text}\n\n{fields(document)}" if verbose else text)


def _require_sense(settings: dict[str, Any], adapters: int) -> None:
    """Refuse what does not go together, or is no number."""
    layout, batch = settings["layout"], settings["batch"]
    finished = settings["target"] == "web" and is_folder(settings["adapters"][0])
    if adapters != 1 and layout == "baked" and not finished:
        raise VptkitError(
            f"{adapters} adapters given: several in one bundle need --layout bank. A baked "
            "bundle holds one."
        )
    if batch != "dynamic" and not (batch.isdecimal() and int(batch) > 0):
        raise VptkitError(f"--batch {batch!r}: expected a number above 0, or dynamic")
    if settings["format"] == "onnx" and settings["reject_from"] is not None:
        raise VptkitError(
            "--reject-from does not go with --format onnx: what it measures is kept in a bundle."
        )
    if layout != "bank":
        return
    if settings["format"] == "onnx":
        raise VptkitError(
            "--format onnx does not go with --layout bank: a bank's tables are inputs of its graph, "
            "which only a bundle holds."
        )
    if settings["gate"] is not None or settings["calibration"] is not None:
        raise TargetError(
            "--gate and --calibration do not go with --layout bank yet: judge each adapter's "
            "own bundle (--layout baked) in this precision."
        )


def _exported(settings: dict[str, Any], made: Path, common: dict[str, Any]) -> dict[str, Any]:
    """The manifest of what was written, and what is to be said of its precision."""
    if settings["layout"] == "bank":
        manifest = _export_bank(settings, made, common)
        note_bank_precision(manifest)
    else:
        manifest = _export_one(settings, made, common)
        note_missing_gate(manifest)
    note_merging(manifest)
    return manifest


def _export_web(settings: dict[str, Any], made: Path, common: dict[str, Any]) -> None:
    """A bundle that goes again, and the page of it."""
    with tempfile.TemporaryDirectory(prefix="vptkit-") as folder:
        bundle = Path(folder) / f"{made.name}.vptk"
        manifest = _exported(settings, bundle, common)
        finish_web([bundle], made, settings, manifest)


def _export_bank(settings: dict[str, Any], output: Path, common: dict[str, Any]) -> dict[str, Any]:
    from vptkit.export import BankOptions, export_bank

    room = BankOptions(
        prompts=settings["bank_prompts"],
        classes=settings["bank_classes"],
        layer_norms=settings["bank_layer_norms"],
        rank=settings["bank_rank"],
        tables=settings["tables"],
    )
    return export_bank(settings["adapters"], output, bank=room, **common)


def _export_one(settings: dict[str, Any], output: Path, common: dict[str, Any]) -> dict[str, Any]:
    """One adapter as a bundle; or, of a bundle that goes again, the graph."""
    from vptkit.export import export as run_export

    (adapter,) = settings["adapters"]
    if settings["last_block"] != "auto":
        _require_token_pool(adapter, settings["last_block"])
    judged = {
        "calibration": settings["calibration"],
        "gate": settings["gate"],
        "calibration_images": settings["calibration_images"],
        "allow_outside": settings["allow_outside"],
        "columns": settings["columns"],
        "skip_broken": settings["skip_broken"],
        "decode": settings["decode"],
        "reject_from": settings["reject_from"],
        **common,
    }
    if settings["format"] == "bundle":
        return run_export(adapter, output, **judged)
    from vptkit.atomic_files import require_absent, require_writable
    from vptkit.export.bundle.onnx_output import write_onnx

    require_absent(output, force=common["force"])
    require_writable(output)
    with tempfile.TemporaryDirectory(prefix="vptkit-") as folder:
        bundle = Path(folder) / f"{output.stem}.vptk"
        manifest = run_export(adapter, bundle, **judged)
        write_onnx(bundle, output, force=common["force"])
    return manifest


def _require_token_pool(path: Path, last_block: str) -> None:
    from vptkit.formats.adapter import read_adapter

    pool = read_adapter(path).pool
    if pool != "token":
        raise VptkitError(
            f"--last-block {last_block} has no effect here: it goes with token pooling, and {path} "
            f"pools {pool!r}. Leave it away."
        )


def _document(manifest: dict[str, Any], output: Path, format: str) -> dict[str, Any]:
    document: dict[str, Any] = {"bundle" if format == "bundle" else "onnx": str(output)}
    document |= {key: manifest.get(key) for key in _SHOWN}
    document["calibration"] = (manifest["lowering"] or {}).get("calibration")
    if manifest["layout"] == "bank":
        document["adapters"] = [entry["name"] for entry in manifest["adapters"]]
    return document
