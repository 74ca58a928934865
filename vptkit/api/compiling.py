"""`vptkit.export`: adapters and weights become a bundle, as by the command of that name."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vptkit.errors import VptkitError
from vptkit.progress import no_phases

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from vptkit.export.bank.export_bank import BankOptions
    from vptkit.export.bundle.export_options import ExportOptions
    from vptkit.export.numerics.evidence import Evidence
    from vptkit.formats.adapter import Adapter
    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.progress import Phases

    Described = Callable[[Adapter], tuple[BackboneSpec, Mapping[str, NDArray[Any]]]]
    Verify = bool | Callable[[Path], dict[str, Any] | None]

__all__ = ["described", "export", "export_bank"]


def export(
    adapter: str | Path,
    output: str | Path,
    *,
    weights: str | Path | None = None,
    precision: Literal["fp32", "fp16", "bf16", "int8", "fp8"] | None = None,
    outputs: Literal["logits", "features", "both"] | None = None,
    normalize_features: bool = False,
    reject_from: str | Path | None = None,
    options: ExportOptions | None = None,
    calibration: str | Path | None = None,
    gate: str | Path | None = None,
    calibration_images: int = 128,
    allow_outside: bool = False,
    columns: str | None = None,
    skip_broken: bool = False,
    decode: str | None = None,
    threads: int | None = None,
    verify: Verify = True,
    force: bool = False,
    from_timm: Described | None = None,
    evidence: Callable[[Adapter], Evidence] | None = None,
    phase: Phases = no_phases,
) -> dict[str, Any]:
    """Compile an adapter and its backbone into one folded ONNX bundle.

    Args:
        adapter: an adapter file.
        output: the bundle's folder; appears whole or not at all.
        weights: the backbone's safetensors file; timm's, from its hub, unless given.
        precision: of the graph, where it is all that is asked for; fp32 unless given.
        outputs, normalize_features: what the graph gives, where nothing else but the precision is
            asked for; logits unless given. The command's --output and --normalize-features.
        reject_from: the data that the adapter was tuned on, with train and val, for
            `session.predict(reject=…)`; goes with features.
        options: everything else that may be asked for.
        calibration, gate: images for the ranges of int8 and fp8, and to judge a precision below
            fp32 by; as of `vptkit export`.
        calibration_images: at most so many.
        allow_outside: of `vptkit.datasets.dataset_bounds.require_inside`.
        columns: which columns of a table are image, label and split
            (`vptkit.datasets.table_columns.parse_columns`).
        skip_broken: go on without images that cannot be read; else all of them are named.
        decode: how these images are decoded, "exact" or "fast" (`vptkit.images.image_pixels`).
        threads: of that judgement, and of verifying.
        verify: compare with the adapter's golden answers before finishing; or a function that is
            called with the finished folder.
        force: replace an existing bundle.
        from_timm: asked for spec and weights where the file alone does not do; timm unless given.
        evidence: asked for real images and a runner instead of the folders above.
        phase: is told what is being done, such as `vptkit.progress.progress`.

    Returns:
        The manifest.

    Raises:
        AdapterError, BackboneError, OutputError, TargetError, GateError: see
            `vptkit.export.bundle.export_bundle.export`.
        MissingExtraError: a package that is needed for this is not installed.
    """
    _require_onnx()
    from vptkit.cli.shared.judging_images import Asked, evidence_of
    from vptkit.cli.shared.precision_evidence import runner
    from vptkit.export.bundle.export_bundle import export as compile_adapter

    chosen = _options(precision, outputs, options, normalize_features=normalize_features)
    reading: dict[str, Any] = {
        "allow_outside": allow_outside,
        "columns": columns,
        "skip_broken": skip_broken,
        "decode": decode,
    }
    lowered = chosen.lowering.precision != "fp32"
    if evidence is None and (lowered or calibration is not None or gate is not None):
        asked = Asked(_path(calibration), _path(gate), most=calibration_images, **reading)
        evidence = evidence_of(asked, partial(runner, threads=threads), phase)
    return compile_adapter(
        adapter,
        output,
        weights=weights,
        options=chosen,
        force=force,
        from_timm=from_timm or _by_timm(weights),
        verify=_verification(verify, threads),
        evidence=evidence,
        runner=(
            (lambda asked: runner(asked.preprocess, threads)) if verify or reject_from else None
        ),
        reject_from=_likeness(reject_from, chosen, reading),
        phase=phase,
    )


def export_bank(
    adapters: Sequence[str | Path],
    output: str | Path,
    *,
    weights: str | Path | None = None,
    options: ExportOptions | None = None,
    bank: BankOptions | None = None,
    name: str | None = None,
    verify: Verify = True,
    force: bool = False,
    from_timm: Described | None = None,
    threads: int | None = None,
    phase: Phases = no_phases,
) -> dict[str, Any]:
    """Compile a backbone and the tables of some adapters into one bundle.

    Args:
        adapters: adapter files of one backbone, with different names.
        output, weights, options, verify, force, from_timm, threads, phase: as of `export`.
        bank: what to leave room for.
        name: of the bundle; the output's stem unless given.

    Returns:
        The manifest.

    Raises:
        AdapterError, BackboneError, TargetError, OutputError, GateError: see
            `vptkit.export.bank.export_bank.export_bank`.
    """
    _require_onnx()
    from vptkit.export.bank.export_bank import export_bank as compile_bank

    if isinstance(adapters, str | Path):
        raise VptkitError(f"adapters: {adapters} came, expected a list of adapter files")
    return compile_bank(
        adapters,
        output,
        weights=weights,
        options=options,
        bank=bank,
        name=name,
        force=force,
        from_timm=from_timm or _by_timm(weights),
        verify=_verification(verify, threads),
        phase=phase,
    )


def described(adapter: Any, weights: str | Path | None) -> Any:
    """Spec and weights by way of timm, where the file alone does not do."""
    from vptkit.cli.shared.output import require_tune

    require_tune("export of this backbone (its weights are not in the form of the adapter's spec)")
    from vptkit.tune.backbone.timm_backbone import described_weights

    return described_weights(adapter, _path(weights))


def _by_timm(weights: str | Path | None) -> Described:
    return lambda adapter: described(adapter, weights)


def _require_onnx() -> None:
    from vptkit.cli.shared.output import require_onnx

    require_onnx("export")


def _likeness(
    data: str | Path | None, options: ExportOptions, reading: Mapping[str, Any]
) -> Callable[[Adapter], tuple[Any, Any]] | None:
    """What is asked for the images of `--reject-from`."""
    from vptkit.cli.shared.rejection_images import rejection_images

    if data is None:
        return None
    if options.output == "logits":
        raise VptkitError(
            "--reject-from has no effect here: it goes with --output features or both. Leave it "
            "away, or add --output both."
        )
    return partial(rejection_images, Path(data), **reading)


def _options(
    precision: str | None,
    outputs: str | None,
    options: ExportOptions | None,
    *,
    normalize_features: bool,
) -> ExportOptions:
    from vptkit.export.bundle.export_options import ExportOptions
    from vptkit.export.precision.lowering import Lowering

    known = ("fp32", "fp16", "bf16", "int8", "fp8")
    if precision is None and outputs is None and not normalize_features:
        return options or ExportOptions()
    if options is not None and precision is not None:
        raise VptkitError(
            f"precision {precision!r} and options: name it there, ExportOptions(lowering="
            f"Lowering(precision={precision!r}))"
        )
    if options is not None:
        raise VptkitError(
            f"outputs {outputs!r} and options: name them there, ExportOptions(output=…, "
            "normalize_features=…)"
        )
    if precision not in (None, *known):
        raise VptkitError(f"precision is {precision!r}, expected one of {', '.join(known)}")
    return ExportOptions(
        lowering=Lowering(precision=precision or "fp32"),  # type: ignore[arg-type]
        output=outputs or "logits",  # type: ignore[arg-type]
        normalize_features=normalize_features,
    )


def _verification(
    verify: Verify, threads: int | None
) -> Callable[[Path], dict[str, Any] | None] | None:
    if not isinstance(verify, bool):
        return verify
    from vptkit.cli.shared.precision_evidence import golden_parity

    return partial(golden_parity, threads=threads) if verify else None


def _path(place: str | Path | None) -> Path | None:
    return None if place is None else Path(place)
