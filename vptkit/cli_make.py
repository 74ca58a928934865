"""The commands that make files: tune, export, demo. `vptkit.cli` registers them.

No future import of annotations here: typer reads them at run time.
"""

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from vptkit.errors import MissingExtraError, TargetError, VptkitError

__all__ = ["demo", "export", "require_tune", "tune"]

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that exists.")]
Weights = Annotated[
    Path | None, typer.Option(help="The backbone's weights, .safetensors [timm's, from its hub].")
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads [all usable cores].")]
Settings = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file of vptkit tune: its backbone_args are taken."),
]
Text = str | None
Int = int | None
Float = float | None
Bool = bool | None


# Arguments of `tune` that say how to run, not what to learn
_NOT_SETTINGS = frozenset(
    ("data", "output", "config", "image_size", "threads", "resume", "force", "as_json")
)


def option(text: str) -> Any:
    """An option that is left alone unless given: the default stands in the configuration."""
    return typer.Option(help=text, show_default=False)


def tune(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="train/ val/ [test/ ood/], each with one folder per class; one folder per class,"
            " which is split; a CSV of path,label[,split]; Parquet files or a saved data set of"
            " Hugging Face; WebDataset shards.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="NAME.safetensors")],
    backbone: Annotated[Text, option("timm model name.")] = None,
    weights: Weights = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings (names as here, with _).")
    ] = None,
    image_size: Annotated[Int, option("Input size in pixels [the model's].")] = None,
    method: Annotated[Text, option("bpt, vpt, ln, ln+bpt, ln+vpt, linear [ln].")] = None,
    insert: Annotated[Text, option("deep or shallow [deep].")] = None,
    form: Annotated[Text, option("Of bpt: bilinear, fwhiten, twhiten [bilinear].")] = None,
    prompts: Annotated[Int, option("Prompts at each block, m [50].")] = None,
    rank: Annotated[Int, option("Rank of the bilinear form, p [50].")] = None,
    b_init: Annotated[Text, option("Bilinear: B starts random or whiten [random].")] = None,
    tune_b_last: Annotated[Int, option("Deep bilinear: learn B in the last blocks [4].")] = None,
    whiten_images: Annotated[Int, option("Training images for whitening [100].")] = None,
    whiten_floor: Annotated[Float, option("Relative floor of eigenvalues [1e-6].")] = None,
    tap: Annotated[Text, option("Whiten the tokens pre_ln1 or post_ln1 [pre_ln1].")] = None,
    compat: Annotated[Text, option("Whitening of the paper or as released [paper].")] = None,
    pool: Annotated[Text, option("token, avg, avg_prompts, map [the model's].")] = None,
    norm: Annotated[Text, option("before_pool or after_pool [the model's].")] = None,
    epochs: Annotated[Int, option("Unless --cycles counts its own [20].")] = None,
    batch_size: Annotated[Int, option("[32]")] = None,
    warmup: Annotated[Float, option("Share of all steps [0.1].")] = None,
    lr: Annotated[Float, option("Rate of the prompts [5e-3].")] = None,
    wd: Annotated[Float, option("Weight decay of the prompts [1e-3].")] = None,
    lr_head: Annotated[Float, option("Rate of the head [5e-3; linear: 5e-2].")] = None,
    wd_head: Annotated[Float, option("Weight decay of the head [0.1].")] = None,
    lr_ln: Annotated[Float, option("Rate of LayerNorms [1e-3].")] = None,
    cycles: Annotated[
        Int, option("LayerNorms: head and norms in turns, so often; 0: at once [0].")
    ] = None,
    head_epochs: Annotated[Int, option("Of each cycle's head phase [10].")] = None,
    ln_epochs: Annotated[Int, option("Of each cycle's LayerNorm phase [10].")] = None,
    rescale: Annotated[
        Text, option("Shift that λ, chosen on val, scales: none, gamma, beta, both [none].")
    ] = None,
    refit_epochs: Annotated[Int, option("Of the head, after λ was chosen [0].")] = None,
    full_data: Annotated[
        Path | None, option("A fuller set of the same classes: reports a proxy of FSR.")
    ] = None,
    dropout: Annotated[Float, option("On prompts [0.1 for vpt deep, else 0].")] = None,
    clip: Annotated[Float, option("Bound of the gradient's norm, 0 for none [1].")] = None,
    patience: Annotated[
        Int, option("Stop after so many epochs without a better one on val [never].")
    ] = None,
    class_weights: Annotated[
        Text, option("none, or balanced: rare classes count more in the loss [none].")
    ] = None,
    precision: Annotated[
        Text, option("Of the backbone: fp32, bf16, fp16; what is learned stays fp32 [fp32].")
    ] = None,
    device: Annotated[Text, option("auto, cpu, cuda or cuda:N [auto: a GPU if any].")] = None,
    compile: Annotated[Bool, typer.Option("--compile", help="torch.compile the forward.")] = None,
    accumulate: Annotated[
        Int, option("Compute each batch in so many parts, for memory [1].")
    ] = None,
    augment: Annotated[Text, option("none, flip or crop [flip].")] = None,
    crop_scale: Annotated[Float, option("Smallest area that crop keeps [0.5].")] = None,
    val_share: Annotated[Float, option("Share of each class, if DATA is split [0.15].")] = None,
    test_share: Annotated[Float, option("Likewise [0.15].")] = None,
    shots: Annotated[
        Text, option("Training images kept of each class; 1,2,5 is a training for each [all].")
    ] = None,
    golden: Annotated[Int, option("Images with reference answers in the adapter [8].")] = None,
    seed: Annotated[Int, option("Of everything random [0].")] = None,
    name: Annotated[Text, option("Of the adapter [the file's].")] = None,
    threads: Threads = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a killed run stopped.")
    ] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Learn prompts, LayerNorms and a head on a frozen backbone; write an adapter."""
    given = {k: v for k, v in locals().items() if v is not None and k not in _NOT_SETTINGS}
    require_tune("tune")
    import torch

    from vptkit.progress import progress
    from vptkit.table import fields
    from vptkit.tune import config_from_mapping
    from vptkit.tune import tune as run_tune
    from vptkit.tune.distributed import leads
    from vptkit.tune.shots import shots_of, tune_shots

    settings = {**(_toml(config) if config else {}), **given}
    counts = shots_of(settings.pop("shots", None))
    if len(counts) == 1:
        settings["shots"] = counts[0]
    if image_size is not None:
        arguments = settings.get("backbone_args", {})
        if isinstance(arguments, dict):  # else the configuration refuses it
            settings["backbone_args"] = {**arguments, "img_size": image_size}
    if threads is not None:
        torch.set_num_threads(threads)
    chosen = config_from_mapping(settings)
    try:
        if len(counts) > 1:
            made = tune_shots(data, output, chosen, counts, resume=resume, force=force)
            if leads():
                emit(made.to_json(), as_json, text=made.to_text())
            return
        with progress("tune") as bar:
            result = run_tune(
                data,
                output,
                chosen,
                resume=resume,
                force=force,
                progress=bar,
            )
    except KeyboardInterrupt:
        typer.echo("finished epochs are kept: the same command with --resume goes on", err=True)
        raise
    if leads():  # of torchrun's processes one speaks
        emit(result.to_json(), as_json, text=fields(result.to_text()))


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
    _choice("--layout", layout, ("baked", "bank"))
    _choice("--bank-layer-norms", bank_layer_norms, ("auto", "yes", "no"))
    _choice("--precision", precision, ("fp32", "fp16", "bf16", "int8", "fp8"))
    _choice("--target", target, ("auto", "cpu", "tensorrt"))
    _choice("--input", input, ("uint8", "float32"))
    _choice("--fold", fold, ("all", "none"))
    _choice("--last-block", last_block, ("auto", "absorbed", "query", "full"))
    if len(adapters) != 1 and layout == "baked":
        raise VptkitError(
            f"{len(adapters)} adapters given: several in one bundle need --layout bank. A baked "
            "bundle holds one."
        )
    if batch != "dynamic" and not (batch.isdecimal() and int(batch) > 0):
        raise VptkitError(f"--batch {batch!r}: expected a number above 0, or dynamic")
    try:
        import onnx  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnx", "export", "export") from error
    from vptkit.cli_precision import ImageFolders, evidence_of, lowering_of, note_missing_gate
    from vptkit.export import ExportOptions
    from vptkit.export import export as run_export

    lowering = lowering_of(
        precision=precision,
        target=target,
        islands=tuple(island or ()),
        auto_islands=islands,
        min_agreement=min_agreement,
    )
    folders = ImageFolders(calibration, gate, calibration_images)
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
            from_timm=lambda adapter: described(adapter, weights),
            verify=golden_parity if verify else None,
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
        from_timm=lambda adapter: described(adapter, weights),
        verify=golden_parity if verify else None,
        evidence=None if precision == "fp32" else evidence_of(folders, threads),
    )
    note_missing_gate(manifest)
    document = {"bundle": str(output), **{key: manifest[key] for key in _SHOWN}}
    emit(document, as_json)


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


def described(adapter: Any, weights: Path | None) -> Any:
    """Spec and weights by way of timm, where the file alone does not do."""
    require_tune("export of this backbone (its weights are not in the form of the adapter's spec)")
    from vptkit.tune.backbone import described_weights

    return described_weights(adapter, weights)


def golden_parity(bundle: Path) -> dict[str, Any] | None:
    """Parity of a bundle with its golden answers, or None if it has none to compare with."""
    from vptkit.cli_precision import open_or_simulate
    from vptkit.runtime.check import check_golden, require_parity

    session, imitated = open_or_simulate(bundle)
    bundled = session.bundle
    if all(bundled.golden(name) is None for name in bundled.adapter_names):
        return None
    parity = check_golden(session)
    require_parity(session, parity)
    return {"backend": session.backend, "simulated": imitated, **parity.to_json()}


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
    epochs: Annotated[int, typer.Option(min=1, help="For each method.")] = 8,
    threads: Threads = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Tune, export, check and profile three methods side by side, and write a report."""
    require_tune("demo")
    from vptkit.demo import DemoSettings, demo_table, run_demo

    settings = DemoSettings(
        output=output,
        data=data,
        backbone=backbone,
        weights=weights,
        image_size=image_size,
        epochs=epochs,
        threads=threads,
    )
    document = run_demo(settings, force=force)
    emit(document, as_json, text=f"{demo_table(document)}\nreport: {document['report']}")


def require_tune(purpose: str) -> None:
    """Name the extra if torch or timm is missing; called before torch is first imported."""
    # Read once, when torch starts its threads: waiting threads shall sleep. By default they spin,
    # which on a busy machine of few cores made a training step up to ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        for package in ("torch", "torchvision", "timm"):
            importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "tune", purpose) from error


def _choice(flag: str, value: str, known: tuple[str, ...], later: tuple[str, ...] = ()) -> None:
    if value in later:
        raise TargetError(f"{flag} {value} is not supported yet; expected {' or '.join(known)}")
    if value not in known:
        raise VptkitError(f"{flag} {value!r}: expected {' or '.join(known)}")


def _toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        settings: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VptkitError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise VptkitError(f"{path}: not valid TOML: {error}") from error
    return settings


def backbone_args(config: Path | None, image_size: int | None) -> dict[str, Any]:
    """Arguments of the backbone: those of a file for `vptkit tune`, and the input size."""
    arguments = _toml(config).get("backbone_args", {}) if config else {}
    if not isinstance(arguments, dict):
        raise VptkitError(f"{config}: backbone_args is {arguments!r}, expected a table")
    return arguments if image_size is None else {**arguments, "img_size": image_size}


@contextlib.contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Name the extra that a failing import needs."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "vptkit").partition(".")[0]
        if package == "vptkit":
            raise
        raise MissingExtraError(package, extra, purpose) from error


def emit(document: dict[str, Any], as_json: bool, *, text: str | None = None) -> None:
    """Print a result: one JSON document, or text (name-value lines unless given)."""
    from vptkit.table import fields

    if as_json:
        print(json.dumps(document, allow_nan=False), flush=True)
    else:
        print(fields(document) if text is None else text, flush=True)
