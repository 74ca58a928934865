"""`export --layout bank`: many adapters of one backbone in, one bundle out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vptkit.atomic_files import atomic_folder
from vptkit.backbones.stored_tensor import Overlaid
from vptkit.errors import AdapterError, TargetError, VptkitError
from vptkit.export.analysis.macs import low_rank_macs
from vptkit.export.bundle.export_bundle import opened_backbone
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.export.bundle.manifest import manifest_of
from vptkit.export.bundle.merge_plan import merged_otherwise, with_merging
from vptkit.export.fold.block_tensors import Tensors
from vptkit.export.fold.fold_network import fold
from vptkit.export.graph.constants_file import constants_file
from vptkit.export.graph.onnx_file import write_model
from vptkit.export.graph.score_output import add_scores
from vptkit.export.precision.lowering import lower
from vptkit.formats.adapter import read_adapter
from vptkit.formats.backbone_weights import digest_of_weights
from vptkit.formats.bank_tables import (
    NORMS,
    BankShape,
    bank_linears,
    kept_norms,
    norm_slots,
    open_norms,
    write_rows,
)
from vptkit.formats.bundle import FEATURES, LOGITS, MODEL, adapter_entry, write_manifest
from vptkit.formats.manifest_schema import MULTILABEL
from vptkit.formats.tensor_file import write_tensors
from vptkit.progress import no_phases

from .adapter_rows import Bank, has_outer_norm, require_member, rows_of, tunes_blocks
from .linear_rows import rooms_for
from .lookup_graph import bank_graph

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from vptkit.backbones.merge_schedule import TokenMerging
    from vptkit.export.precision.lowering import Lowered
    from vptkit.formats.adapter import Adapter
    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.formats.bank_tables import AdapterRows
    from vptkit.progress import Phases

__all__ = ["BankOptions", "export_bank"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BankOptions:
    """What a bank shall have room for; the number of adapters is free.

    Attributes:
        prompts, classes: the most of any adapter; those of the given adapters unless set.
        layer_norms: "yes", "no", or "auto": as the given adapters need.
        rank: of low-rank weight deltas, in every linear that a given adapter changes so; the most
            of the adapters in that linear unless set.
        tables: "inputs" of the graph, which can be changed, or "constant" in it, for servers whose
            inputs all have a batch dimension; then the number of adapters is fixed too.
    """

    prompts: int | None = None
    classes: int | None = None
    layer_norms: Literal["auto", "yes", "no"] = "auto"
    rank: int | None = None
    tables: Literal["inputs", "constant"] = "inputs"


def export_bank(
    adapter_paths: Sequence[str | Path],
    output: str | Path,
    *,
    weights: str | Path | None = None,
    options: ExportOptions | None = None,
    bank: BankOptions | None = None,
    name: str | None = None,
    force: bool = False,
    from_timm: Callable[[Adapter], tuple[BackboneSpec, Mapping[str, NDArray[Any]]]] | None = None,
    verify: Callable[[Path], dict[str, Any] | None] | None = None,
    phase: Phases = no_phases,
) -> dict[str, Any]:
    """Compile a backbone and the tables of some adapters into one bundle.

    Args:
        adapter_paths: adapter files of one backbone, with different names.
        output, weights, options, force, from_timm, verify, phase: as of `export_bundle.export`.
        bank: what to leave room for.
        name: of the bundle; the output's stem unless given.

    Returns:
        The manifest.

    Raises:
        AdapterError, BackboneError: an adapter does not fit the others, or the backbone.
        TargetError: the options ask for what a bank does not do.
        OutputError, GateError: as of `export_bundle.export`.
    """
    options, room = options or ExportOptions(), bank or BankOptions()
    _require_options(options)
    output = Path(output)
    adapters = [read_adapter(Path(path)) for path in adapter_paths]
    _require_names(adapters)
    first = adapters[0]
    with (
        atomic_folder(output, force=force) as folder,
        opened_backbone(first, weights, from_timm) as (spec, tensors),
    ):
        options = _merging(adapters, spec, options)
        merging, features = options.merging, FEATURES in options.outputs
        tuned = all(adapter.merging == merging for adapter in adapters)
        adapters = [_merged(adapter, merging) for adapter in adapters]
        members = _bank(adapters, spec, tensors, room, features=features, merging=merging)
        for adapter in adapters:
            require_member(adapter, members)
        rows = [rows_of(adapter, members) for adapter in adapters]
        constant = _filled(members.shape, rows) if room.tables == "constant" else None
        with phase("folding", None):
            lowered = _write_graph(folder, first, members, tensors, options, constant)
        write_tensors(folder / NORMS, members.norms)
        entries = []
        for adapter, own in zip(adapters, rows, strict=True):
            file, digest = write_rows(folder, adapter.name, own)
            entries.append({**adapter_entry(adapter), "file": file, "sha256": digest})
        manifest = _bank_manifest(first, members, options, lowered, constant is not None)
        manifest |= {"name": name or output.stem, "adapters": entries}
        if merging is not None:
            manifest["merging"] = {**manifest["merging"], "tuned": tuned}
        files = write_manifest(folder, manifest)
        if verify is not None:
            with phase("parity", None):
                manifest["parity"] = verify(folder)
            write_manifest(folder, manifest, files)
    return manifest


def _require_options(options: ExportOptions) -> None:
    if options.fold != "all":
        raise VptkitError("--fold none does not go with --layout bank: a bank is a folded graph")
    if LOGITS not in options.outputs:
        raise TargetError(
            f"--output {options.output} does not go with --layout bank: its golden answers are logits. "
            "Pass --output both."
        )
    reasons = {
        "int8": "its ranges would differ from adapter to adapter",
        "fp8": "its ranges would differ from adapter to adapter",
        "bf16": "no session here runs its tables yet",
    }
    precision = options.lowering.precision
    if precision in reasons:
        raise TargetError(
            f"a bank cannot be written in {precision}: {reasons[precision]}. Use fp32 or fp16."
        )


def _require_names(adapters: Sequence[Adapter]) -> None:
    names = [adapter.name for adapter in adapters]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AdapterError(f"two adapters have the name {twice[0]!r}; in a bank names differ")


def _bank(
    adapters: Sequence[Adapter],
    spec: BackboneSpec,
    tensors: Mapping[str, NDArray[Any]],
    room: BankOptions,
    *,
    features: bool = False,
    merging: TokenMerging | None = None,
) -> Bank:
    first = adapters[0]
    wanted = any(tunes_blocks(adapter, spec) for adapter in adapters)
    layer_norms = wanted if room.layer_norms == "auto" else room.layer_norms == "yes"
    if layer_norms and spec.block != "pre":
        raise TargetError(
            f"a bank of {first.backbone.name} cannot look up LayerNorms: its blocks are of the "
            f"kind {spec.block!r}, expected 'pre'. Export these adapters one by one."
        )
    prompts = max(adapter.prompt_length for adapter in adapters)
    classes = max(len(adapter.labels) for adapter in adapters)
    linears = rooms_for(adapters, spec)
    if room.rank is not None:
        needed = max((one.rank for one in linears.values()), default=0)
        if not needed:
            raise VptkitError(
                "--bank-rank has no effect: no adapter has low-rank weight deltas. Leave it out."
            )
        _at_least("--bank-rank", room.rank, needed)
        linears = rooms_for(adapters, spec, room.rank)
    return Bank(
        spec=spec,
        sha256=first.backbone.sha256 or digest_of_weights(tensors),
        shape=BankShape.of(
            spec,
            pool=first.pool,
            prompts=_at_least("--bank-prompts", room.prompts, prompts),
            classes=_at_least("--bank-classes", room.classes, classes),
            layer_norms=layer_norms,
            feature_norm=features and has_outer_norm(first, spec),
            linears=linears,
        ),
        pool=first.pool,
        norm=first.norm,
        preprocess=first.preprocess,
        norms=kept_norms(spec, tensors, layer_norms=layer_norms, linears=linears),
        task=first.task,
        merging=merging,
    )


def _merged(adapter: Adapter, merging: TokenMerging | None) -> Adapter:
    """The adapter; without the golden answers of another network, if it was tuned otherwise."""
    return adapter if adapter.merging == merging else merged_otherwise(adapter, merging, None)


def _merging(
    adapters: Sequence[Adapter], spec: BackboneSpec, options: ExportOptions
) -> ExportOptions:
    """The options with `merging` decided: as asked, or as all adapters were tuned.

    Raises:
        AdapterError: they were tuned differently, and nothing was asked for.
    """
    first = adapters[0]
    other = next((a for a in adapters if a.merging != first.merging), None)
    if other is not None and options.merge is None:
        raise AdapterError(
            f"adapters {first.name!r} and {other.name!r} were tuned with different merging of tokens, "
            "and a bank has one graph: say which with --merge (0: none), or export them one by one"
        )
    return with_merging(options, first, spec)


def _at_least(flag: str, wanted: int | None, needed: int) -> int:
    if wanted is not None and wanted < needed:
        raise VptkitError(f"{flag} {wanted} is less than the {needed} that the adapters have")
    return needed if wanted is None else wanted


def _write_graph(
    folder: Path,
    adapter: Adapter,
    bank: Bank,
    tensors: Mapping[str, NDArray[Any]],
    options: ExportOptions,
    constant: Mapping[str, NDArray[Any]] | None,
) -> Lowered:
    """Write model.onnx; what the tables hold is taken out of the folds."""
    plain: dict[str, NDArray[Any]] = {}
    spec, linears = bank.spec, bank.shape.linears
    opened = open_norms(spec, linears)
    slots = norm_slots(spec) if bank.shape.norms else ()
    for slot in {*slots, *opened.values()}:
        plain[f"{slot}.weight"] = np.ones_like(tensors[f"{slot}.weight"])
        if f"{slot}.bias" in tensors:
            plain[f"{slot}.bias"] = np.zeros_like(tensors[f"{slot}.bias"])
    # a changed projection sees the values' bias, which is its adapter's affair then
    kept = {int(name.split(".")[1]) for name in linears if bank_linears(spec)[name].kind == "proj"}
    folded = fold(spec, Overlaid(plain, tensors), adapter.without_prompts(), value_bias=kept)
    own = Tensors(tensors)
    affines = {graph: own.norm(timm) for graph, timm in opened.items() if graph not in slots}
    with constants_file(folder / f".{MODEL}.constants") as constants:
        model = bank_graph(
            spec,
            folded,
            bank.shape,
            bank.pool,
            bank.norm,
            options.graph(),
            affines=affines,
            constant=constant,
            constants=constants,
        )
        whole = partial(constants.whole, model)
        lowered = lower(adapter.name, model, options.lowering, None, whole=whole)
        if bank.task == MULTILABEL:
            add_scores(lowered.model)
        write_model(lowered.model, folder / MODEL, constants if lowered.model is model else None)
    return lowered


def _filled(shape: BankShape, rows: Sequence[AdapterRows]) -> dict[str, NDArray[np.float32]]:
    """The tables of some adapters, in their order."""
    tables = {
        name: np.empty((len(rows) * count, *row), dtype=np.float32)
        for name, (count, row) in shape.rows().items()
    }
    for slot, own in enumerate(rows):
        own.fill(shape, tables, slot)
    return tables


def _bank_manifest(
    adapter: Adapter, bank: Bank, options: ExportOptions, lowered: Lowered, constant: bool
) -> dict[str, Any]:
    """Fields that a bank shares with a baked bundle, and its further inputs."""
    manifest = manifest_of(adapter.without_prompts(), bank.spec, options, lowered)
    batch = manifest["batch"]
    dtype = {"fp16": "float16", "bf16": "bfloat16"}.get(options.lowering.precision, "float32")
    tables = [
        {
            "name": name,
            "dtype": dtype,
            "shape": list(shape),
            **({"constant": True} if constant else {}),
        }
        for name, shape in bank.shape.signature().items()
    ]
    macs = dict(manifest["macs"])
    how = bank.spec, bank.shape, bank.pool, options.graph().last_block
    macs["graph"] += low_rank_macs(*how, bank.merging)
    if "unmerged" in macs:
        macs["unmerged"] += low_rank_macs(*how)
    looked_up = "LayerNorm affine → next linear" if bank.shape.norms else ""
    return {
        **manifest,
        "backbone": {**manifest["backbone"], "sha256": bank.sha256},
        "inputs": [
            *manifest["inputs"],
            {"name": "adapter", "dtype": "int32", "shape": [batch]},
            *tables,
        ],
        "outputs": [
            {**value, "shape": [batch, bank.shape.classes]} if value["name"] != FEATURES else value
            for value in manifest["outputs"]
        ],
        "layout": "bank",
        "macs": macs,
        "folds": [
            *(fold for fold in manifest["folds"] if fold != looked_up),
            "prompt factors multiplied, rows normalised → bank.prompts",
            *(["attention scale and LayerScale → low-rank factors"] if bank.shape.linears else []),
        ],
    }
