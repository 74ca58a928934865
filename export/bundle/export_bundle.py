"""`export`: adapter and weights in, a bundle out; the steps in order, and the manifest."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_folder
from vptkit.backbones.weights_places import remember_weights
from vptkit.checkpoints.read_weights import opened_remembered, opened_weights
from vptkit.checkpoints.weights_files import weights_file
from vptkit.errors import MissingExtraError
from vptkit.export.analysis.dataflow import remove_output
from vptkit.export.fold.fold_network import fold
from vptkit.export.graph.constants_file import constants_file
from vptkit.export.graph.folded_graph import folded_graph
from vptkit.export.graph.onnx_file import write_model
from vptkit.export.graph.score_output import add_scores
from vptkit.export.graph.unfolded_graph import unfolded_graph
from vptkit.export.numerics.merge_gate import judge_merging
from vptkit.export.precision.lowering import lower
from vptkit.formats.adapter import read_adapter, require_backbone, write_adapter
from vptkit.formats.backbone_weights import digest_of_weights
from vptkit.formats.bundle import (
    ADAPTER,
    FEATURES,
    GOLDEN,
    LOGITS,
    MODEL,
    REJECTION,
    write_manifest,
)
from vptkit.formats.manifest_schema import MULTILABEL
from vptkit.formats.tensor_file import write_tensors
from vptkit.progress import no_phases

from .export_options import ExportOptions
from .golden_features import golden_features
from .manifest import manifest_of
from .merge_plan import merged_otherwise, with_merging
from .rejection import rejection_of, write_rejection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import onnx
    from numpy.typing import NDArray

    from vptkit.export.graph.constants_file import ConstantsFile
    from vptkit.export.numerics.evidence import Evidence, Images, Run, Runner
    from vptkit.export.precision.lowering import Lowered
    from vptkit.formats.adapter import Adapter
    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.progress import Phases

__all__ = ["export", "opened_backbone", "write_graph"]


def export(
    adapter_path: str | Path,
    output: str | Path,
    *,
    weights: str | Path | None = None,
    options: ExportOptions | None = None,
    force: bool = False,
    from_timm: Callable[[Adapter], tuple[BackboneSpec, Mapping[str, NDArray[Any]]]] | None = None,
    verify: Callable[[Path], dict[str, Any] | None] | None = None,
    evidence: Callable[[Adapter], Evidence] | None = None,
    runner: Callable[[Adapter], Runner] | None = None,
    reject_from: Callable[[Adapter], tuple[Images, Images]] | None = None,
    phase: Phases = no_phases,
) -> dict[str, Any]:
    """Compile an adapter into a bundle. Same input, same bytes.

    Args:
        adapter_path: an adapter file.
        output: the bundle's folder; appears whole or not at all.
        weights: the backbone's file or folder. If it holds the tensors that the adapter's spec
            names, under whosever names, torch is not needed.
        options: what to write.
        force: replace an existing bundle.
        from_timm: asked for spec and weights where the file alone does not do.
        verify: called with the finished folder before it is moved into place; its figures go into
            the manifest's "parity", and an exception of it discards the bundle.
        evidence: asked for real images and a runner, for precisions below fp32.
        runner: asked for what runs the fp32 graph on the golden images, where it gives features, or
            merges tokens as the adapter was not tuned (`merged_otherwise`); without, the bundle
            carries no such golden answers.
        reject_from: asked for labelled images of train and val, of which the bundle learns what is
            like them (`rejection`); needs `runner`, and features in the graph.
        phase: is told what is being done: folding, writing, parity.

    Returns:
        The manifest.

    Raises:
        AdapterError, BackboneError: bad input, or another backbone than the one tuned.
        OutputError: the output exists, or the disk is full.
        TargetError: the options ask for something this backbone does not do.
        GateError: the precision's gate does not hold, or raised by `verify`.
    """
    options = options or ExportOptions()
    adapter = read_adapter(Path(adapter_path))
    with (
        atomic_folder(Path(output), force=force) as folder,
        opened_backbone(adapter, weights, from_timm) as (spec, tensors),
    ):
        known = None if evidence is None else evidence(adapter)
        options = with_merging(options, adapter, spec)
        shipped = adapter
        answers: dict[str, NDArray[Any]] = {}

        def see(whole: Callable[[], onnx.ModelProto]) -> None:
            nonlocal shipped, answers
            run = None if runner is None else cache(lambda: runner(adapter)(whole()))
            shipped, answers = _golden(adapter, options, run)
            if run is None or reject_from is None or options.output == LOGITS:
                return
            with phase("reject-from", None):
                several = adapter.task == MULTILABEL
                found = rejection_of(run(), *reject_from(adapter), several=several)
            write_rejection(folder / REJECTION, found)

        lowered, merge_gate = write_graph(
            folder, adapter, spec, tensors, options, known, phase, see=see
        )
        write_adapter(folder / ADAPTER, shipped)
        if answers:
            write_tensors(folder / GOLDEN, answers)
        manifest = manifest_of(adapter, spec, options, lowered, merge_gate)
        files = write_manifest(folder, manifest)
        if verify is not None:
            with phase("parity", None):
                manifest["parity"] = verify(folder)
            write_manifest(folder, manifest, files)
    return manifest


def _golden(
    adapter: Adapter, options: ExportOptions, run: Callable[[], Run] | None
) -> tuple[Adapter, dict[str, NDArray[Any]]]:
    """The adapter as the bundle carries it, and its golden answers by name.

    Args:
        adapter: as it was tuned.
        options: with `merging` decided.
        run: opens the fp32 graph; only called where golden answers need it.
    """
    if options.merging != adapter.merging:
        adapter = merged_otherwise(adapter, options.merging, None if run is None else run())
    golden = adapter.golden()
    if golden is None:
        return adapter, {}
    answers: dict[str, NDArray[Any]] = {"images": golden[0], LOGITS: golden[1]}
    if run is not None and options.output != LOGITS:
        features = golden_features(adapter, run(), normalized=options.normalize_features)
        answers |= {} if features is None else {FEATURES: features}
    return adapter, answers


def write_graph(
    folder: Path,
    adapter: Adapter,
    spec: BackboneSpec,
    tensors: Mapping[str, NDArray[Any]],
    options: ExportOptions,
    evidence: Evidence | None = None,
    phase: Phases = no_phases,
    see: Callable[[Callable[[], onnx.ModelProto]], None] = lambda _: None,
) -> tuple[Lowered, dict[str, Any] | None]:
    """Write model.onnx in its precision; say how it came to be, and what merging tokens costs.

    A graph that gives features alone is lowered and judged with its logits, which then go. With
    several labels an image, scores come to the lowered logits (`score_output`).

    The constants are written to a file as they are folded. What computes with them, to lower or to
    judge a graph, has a copy in memory for as long.

    Args:
        folder: of the bundle.
        adapter, spec, tensors, options, evidence, phase: as of `export`.
        see: is given what makes the fp32 graph, with its constants.

    Raises:
        VptkitError, GateError: see `lowering.lower`.
    """
    with constants_file(folder / f".{MODEL}.constants") as constants:
        with phase("folding", None):
            if options.fold == "all":
                model = _folded(adapter, spec, tensors, options, constants)
            else:
                graph = options.graph()
                model = unfolded_graph(spec, tensors, adapter, graph, constants=constants)
        whole = partial(constants.whole, model)
        see(whole)
        cost = None
        if options.merging is not None:
            unmerged = replace(options, merging=None)
            cost = judge_merging(
                adapter.name,
                whole,
                lambda: _folded(adapter, spec, tensors, unmerged),
                evidence,
                min_agreement=options.min_merge_agreement,
                tuned=adapter.merging == options.merging,
                thresholds=adapter.thresholds,
            )
        how, judged = options.lowering, adapter.thresholds
        lowered = lower(adapter.name, model, how, evidence, thresholds=judged, whole=whole)
        if LOGITS not in options.outputs:
            remove_output(lowered.model, LOGITS)
        elif adapter.task == MULTILABEL:
            add_scores(lowered.model)
        with phase("writing", None):
            write_model(
                lowered.model, folder / MODEL, constants if lowered.model is model else None
            )
    return lowered, cost


def _folded(
    adapter: Adapter,
    spec: BackboneSpec,
    tensors: Mapping[str, NDArray[Any]],
    options: ExportOptions,
    constants: ConstantsFile | None = None,
) -> onnx.ModelProto:
    """The folded graph in fp32."""
    folded = fold(spec, tensors, adapter, keep_final_norm=options.output != LOGITS)
    how = adapter.insert, adapter.pool, adapter.norm, options.graph()
    return folded_graph(spec, folded, *how, constants=constants)


@contextlib.contextmanager
def opened_backbone(
    adapter: Adapter,
    weights: str | Path | None,
    from_timm: Callable[[Adapter], tuple[BackboneSpec, Mapping[str, NDArray[Any]]]] | None,
) -> Iterator[tuple[BackboneSpec, Mapping[str, NDArray[Any]]]]:
    """Yield spec and weights, the digest compared: from the file alone if it will do.

    Each tensor is read from the open file when it is asked for, the first time for the digest. What
    is folded later is what was compared: a file that was changed meanwhile is refused.
    """
    path = None if weights is None else Path(weights)
    spec = adapter.backbone.spec
    with contextlib.ExitStack() as stack:
        if spec is not None:
            opened = (
                opened_remembered(spec, adapter.backbone.sha256)
                if path is None
                else opened_weights(path, spec)
            )
            tensors = stack.enter_context(opened)
            if tensors is not None and path is not None:
                digest = digest_of_weights(tensors)
                require_backbone(adapter.backbone, digest, path)
                remember_weights(digest, weights_file(path))
            if tensors is not None:
                yield spec, tensors
                return
        if from_timm is None:
            raise MissingExtraError("timm", "tune", "reading this backbone")
        yield from_timm(adapter)
