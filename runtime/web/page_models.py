"""What the page is told of each bundle, and which bundles it cannot run."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from vptkit.errors import TargetError, VptkitError
from vptkit.formats.bundle import LOGITS, MODEL
from vptkit.formats.bundle_files import folder_name
from vptkit.formats.manifest_schema import MODEL_DATA
from vptkit.shown_text import shown

from .bank_tables_file import TABLE_TYPES, write_tables

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vptkit.formats.bundle import Bundle

__all__ = ["MODELS", "WEB_PRECISIONS", "model_names", "page_model", "require_web"]

MODELS = "models"  # the folder of the graphs
WEB_PRECISIONS = ("fp32", "fp16", "int8")
_MOST = (1 << 31) - 1  # bytes of a file that a browser holds as one array


def model_names(bundles: Sequence[Bundle]) -> list[str]:
    """What the page calls each bundle: its own name; where two have one, as of one adapter, its folder's.

    Raises:
        VptkitError: two are called the same then, too.
    """
    own = [bundle.name for bundle in bundles]
    folders = [folder_name(bundle.path) for bundle in bundles]
    names = [
        name if own.count(name) == 1 else folder for name, folder in zip(own, folders, strict=True)
    ]
    for bundle, name in zip(bundles, names, strict=True):
        if names.count(name) > 1:
            raise VptkitError(
                f"{shown(bundle.path)}: another of these bundles has the name {shown(name)}, too. "
                "Rename one of the folders."
            )
    return names


def require_web(bundle: Bundle) -> None:
    """Refuse a bundle that onnxruntime-web, or the page, cannot run.

    Raises:
        TargetError: says which property it is, and what to export instead.
    """
    reason = _precision(bundle) or _graph(bundle) or _size(bundle)
    if reason:
        raise TargetError(f"{shown(bundle.path)}: {reason}")


def _precision(bundle: Bundle) -> str:
    if bundle.precision not in WEB_PRECISIONS:
        return (
            f"its precision is {bundle.precision}, which onnxruntime-web has no kernels for. Export "
            f"with --precision {' or '.join(WEB_PRECISIONS)}."
        )
    lowering = bundle.manifest["lowering"] or {}
    if bundle.precision == "int8" and lowering.get("target") == "tensorrt":
        return "its int8 is laid out for TensorRT. Export it again with --target web."
    return ""


def _graph(bundle: Bundle) -> str:
    if LOGITS not in bundle.outputs:
        return "its graph gives features and no logits, so the page has nothing to show. Export with --output both."
    if bundle.input != "images":
        return "its graph takes normalised numbers (--input float32). Export with --input uint8."
    if bundle.batch not in (None, 1):
        return f"its graph takes {bundle.batch} images at once, and the page has one. Export with --batch dynamic or 1."
    types = {v["dtype"] for v in bundle.manifest["inputs"] if v["name"].startswith("bank.")}
    if odd := types - set(TABLE_TYPES):
        return (
            f"its tables are of {min(odd)}, which a browser has no numbers for. Export it as fp32."
        )
    return ""


def _size(bundle: Bundle) -> str:
    size = (bundle.path / MODEL).stat().st_size
    if MODEL_DATA in bundle.graph_files or size > _MOST:
        return (
            "its graph has more than 2 GB, which a browser does not hold. Choose a smaller backbone, or "
            "--precision int8 or fp16."
        )
    return ""


def page_model(bundle: Bundle, name: str, number: int, root: Path) -> dict[str, Any]:
    """Write a bundle's graph and tables below a folder, and say what the page needs to know.

    Args:
        bundle: that `require_web` lets through.
        name: of `model_names`.
        number: which one it is.
        root: of the page.

    Returns:
        The entry of the manifest; names of files are relative to `root`.
    """
    folder = f"{MODELS}/{number}"
    shutil.rmtree(root / folder, ignore_errors=True)  # of an attempt before
    (root / folder).mkdir(parents=True)
    graph = f"{folder}/{MODEL}"
    (root / graph).write_bytes(bundle.read(MODEL))
    return {
        "name": name,
        "folder": folder,
        "bundle": {"manifest_sha256": bundle.digest, "versions": bundle.manifest["versions"]},
        "backbone": bundle.manifest["backbone"]["name"],
        "precision": bundle.precision,
        "layout": bundle.layout,
        "task": bundle.task,
        "preprocess": bundle.manifest["preprocess"],
        "pillow": int(version("pillow").split(".")[0]),  # whose order of passes the page keeps to
        "input": bundle.input,
        "graph": {"name": graph, "bytes": (root / graph).stat().st_size},
        "check": _check(bundle, folder, root),
        "adapters": [_adapter(bundle, i, folder, root) for i in range(len(bundle.adapter_names))],
    }


def _check(bundle: Bundle, folder: str, root: Path) -> dict[str, Any] | None:
    """A golden image of the first adapter and its answer, with which a browser compares its own."""
    parity, golden = bundle.manifest["parity"], bundle.golden(bundle.adapter_names[0])
    if parity is None or golden is None or not len(golden[0]):
        return None
    images, logits = golden
    name = f"{folder}/golden.bin"
    (root / name).write_bytes(images[0].tobytes())
    told = {"name": name, "bytes": int(images[0].nbytes), "tolerance": parity["tolerance"]}
    return {**told, "logits": [float(value) for value in logits[0]]}


def _adapter(bundle: Bundle, number: int, folder: str, root: Path) -> dict[str, Any]:
    entry = bundle.manifest["adapters"][number]
    told = {key: entry[key] for key in ("name", "labels", "thresholds") if key in entry}
    if bundle.layout != "bank":
        return {**told, "index": 0}
    if bundle.constant_tables:
        return {**told, "index": number}
    name = f"{folder}/adapter-{number}.bin"
    values = write_tables(bundle, entry, root / name)
    size = (root / name).stat().st_size
    return {**told, "index": 0, "tables": {"name": name, "bytes": size, "values": values}}
