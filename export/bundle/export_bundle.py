"""`export`: adapter and weights in, a bundle out; the steps in order, and the manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_folder
from vptkit.backbones.weights_places import remember_weights
from vptkit.checkpoints.read_weights import read_weights, remembered_tensors
from vptkit.checkpoints.weights_files import weights_file
from vptkit.errors import MissingExtraError
from vptkit.export.analysis.dataflow import remove_output
from vptkit.export.fold.fold_network import fold
from vptkit.export.graph.folded_graph import folded_graph
from vptkit.export.graph.onnx_file import write_model
from vptkit.export.graph.score_output import add_scores
from vptkit.export.graph.unfolded_graph import unfolded_graph
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
from .rejection import rejection_of, write_rejection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx
    from numpy.typing import NDArray

    from vptkit.export.numerics.evidence import Evidence, Images, Runner
    from vptkit.export.precision.lowering import Lowered
    from vptkit.formats.adapter import Adapter
    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.progress import Phases

__all__ = ["export", "write_graph"]


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
        runner: asked for what runs the fp32 graph on the golden images, where it gives features
            (`golden_features`); without, the bundle carries no golden features.
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
    with atomic_folder(Path(output), force=force) as folder:
        spec, tensors = _backbone(adapter, weights, from_timm)
        known = None if evidence is None else evidence(adapter)
        golden = adapter.golden()
        answers: dict[str, NDArray[Any]] = (
            {} if golden is None else {"images": golden[0], LOGITS: golden[1]}
        )

        def add_features(model: onnx.ModelProto) -> None:
            if runner is None or options.output == LOGITS:
                return
            if golden is None and reject_from is None:
                return
            run = runner(adapter)(model)
            features = golden_features(adapter, run, normalized=options.normalize_features)
            if features is not None:
                answers[FEATURES] = features
            if reject_from is not None:
                with phase("reject-from", None):
                    found = rejection_of(
                        run, *reject_from(adapter), several=adapter.task == MULTILABEL
                    )
                write_rejection(folder / REJECTION, found)

        lowered = write_graph(
            folder, adapter, spec, tensors, options, known, phase, see=add_features
        )
        write_adapter(folder / ADAPTER, adapter)
        if answers:
            write_tensors(folder / GOLDEN, answers)
        manifest = manifest_of(adapter, spec, options, lowered)
        files = write_manifest(folder, manifest)
        if verify is not None:
            with phase("parity", None):
                manifest["parity"] = verify(folder)
            write_manifest(folder, manifest, files)
    return manifest


def write_graph(
    folder: Path,
    adapter: Adapter,
    spec: BackboneSpec,
    tensors: Mapping[str, NDArray[Any]],
    options: ExportOptions,
    evidence: Evidence | None = None,
    phase: Phases = no_phases,
    see: Callable[[onnx.ModelProto], None] = lambda _: None,
) -> Lowered:
    """Write model.onnx in its precision, and say how it came to be.

    A graph that gives features alone is lowered and judged with its logits, which then go. With
    several labels an image, scores come to the lowered logits (`score_output`).

    Args:
        folder: of the bundle.
        adapter, spec, tensors, options, evidence, phase: as of `export`.
        see: is shown the fp32 graph.

    Raises:
        VptkitError, GateError: see `lowering.lower`.
    """
    with phase("folding", None):
        if options.fold == "all":
            kept = options.output != LOGITS
            folded = fold(spec, tensors, adapter, keep_final_norm=kept)
            model = folded_graph(
                spec, folded, adapter.insert, adapter.pool, adapter.norm, options.graph()
            )
        else:
            model = unfolded_graph(spec, tensors, adapter, options.graph())
    see(model)
    lowered = lower(adapter.name, model, options.lowering, evidence, thresholds=adapter.thresholds)
    if LOGITS not in options.outputs:
        remove_output(lowered.model, LOGITS)
    elif adapter.task == MULTILABEL:
        add_scores(lowered.model)
    with phase("writing", None):
        write_model(lowered.model, folder / MODEL)
    return lowered


def _backbone(
    adapter: Adapter,
    weights: str | Path | None,
    from_timm: Callable[[Adapter], tuple[BackboneSpec, Mapping[str, NDArray[Any]]]] | None,
) -> tuple[BackboneSpec, Mapping[str, NDArray[Any]]]:
    """Spec and weights, the digest compared: from the file alone if it will do."""
    path = None if weights is None else Path(weights)
    spec, tensors = adapter.backbone.spec, None
    if spec is not None and path is None:
        tensors = remembered_tensors(spec, adapter.backbone.sha256)
    elif spec is not None and path is not None:
        tensors = read_weights(path, spec)
    if spec is None or tensors is None:
        if from_timm is None:
            raise MissingExtraError("timm", "tune", "reading this backbone")
        return from_timm(adapter)
    digest = digest_of_weights(tensors)
    require_backbone(adapter.backbone, digest, path)
    if path is not None:
        remember_weights(digest, weights_file(path))
    return spec, tensors
