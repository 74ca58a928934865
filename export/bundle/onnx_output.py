"""The graph of a bundle as one ONNX file, for programs of one's own: what it needs is in its metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_file, require_absent
from vptkit.errors import TargetError
from vptkit.export.graph.onnx_file import read_model, write_model
from vptkit.formats.bundle import open_bundle
from vptkit.formats.manifest_schema import MODEL_DATA
from vptkit.strict_json import canonical_json

if TYPE_CHECKING:
    from pathlib import Path

    from vptkit.formats.bundle import Bundle

__all__ = ["write_onnx"]


def write_onnx(bundle: Path, output: Path, *, force: bool = False) -> None:
    """Write a baked bundle's graph with its labels and preprocessing as metadata.

    Args:
        bundle: of the layout "baked".
        output: NAME.onnx; appears whole or not at all.
        force: replace an existing file.

    Raises:
        TargetError: the graph has more than the 2 GB of one ONNX file.
        OutputError: the output exists, or cannot be written.
    """
    opened = open_bundle(bundle)
    if MODEL_DATA in opened.graph_files:
        raise TargetError(
            f"{output}: the graph has more than 2 GB, which one ONNX file cannot hold. Export a "
            "bundle (--format bundle): its model.onnx has the constants beside it."
        )
    require_absent(output, force=force)
    model = read_model(opened)
    for key, value in _metadata(opened).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"vptkit.{key}", value
    with atomic_file(output) as part:
        write_model(model, part)


def _metadata(bundle: Bundle) -> dict[str, str]:
    manifest: dict[str, Any] = bundle.manifest
    return {
        "name": bundle.name,
        "backbone": str(manifest["backbone"]["name"]),
        "labels": canonical_json(list(bundle.labels)),
        "preprocess": canonical_json(manifest["preprocess"]),
        "precision": bundle.precision,
        "gate": canonical_json(manifest["gate"]),
        **_several_labels(bundle),
    }


def _several_labels(bundle: Bundle) -> dict[str, str]:
    """Task and thresholds, where an image may have several labels."""
    thresholds = bundle.thresholds_of(None)
    if thresholds is None:
        return {}
    return {"task": bundle.task, "thresholds": canonical_json(thresholds.tolist())}
