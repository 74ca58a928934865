"""What an adapter file, a bundle or an engine is, as one document for `vptkit inspect`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import sha256_of_file
from vptkit.errors import BundleError, VptkitError

from .adapter import read_adapter
from .bundle import open_bundle

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["summarize"]


def summarize(path: Path) -> dict[str, Any]:
    """Describe a file (an adapter, an engine) or a folder (a bundle), after checking it.

    Returns:
        JSON-ready; "kind" is "adapter", "engine" or "bundle".

    Raises:
        VptkitError: there is nothing, or it is broken.
    """
    if path.is_dir():
        return _of_bundle(path)
    if path.is_file():
        return _of_engine(path) if path.suffix == ".engine" else _of_adapter(path)
    raise VptkitError(
        f"{path}: no such file or folder. Expected an adapter file, a bundle or an engine."
    )


def _of_engine(path: Path) -> dict[str, Any]:
    """An engine by its record; the plan itself is TensorRT's own, and needs its GPU."""
    file = path.with_suffix(".json")
    try:
        record = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise BundleError(
            f"{path}: has no readable record {file.name} ({error}). Build the engine again."
        ) from error
    if record.get("sha256") != sha256_of_file(path):
        raise BundleError(f"{path}: is not the plan that {file.name} is about. Build it again.")
    layers = record.pop("layers", [])
    return {"kind": "engine", "path": str(path), **record, "layers": len(layers)}


def _of_adapter(path: Path) -> dict[str, Any]:
    adapter = read_adapter(path)
    golden = adapter.golden()
    tuned = {k: v for k, v in adapter.tensors.items() if not k.startswith("golden.")}
    document = adapter.to_json()
    backbone = document.pop("backbone")
    return {
        "kind": "adapter",
        "path": str(path),
        "bytes": path.stat().st_size,
        **document,
        "backbone": {key: backbone[key] for key in ("name", "args", "sha256")},
        "classes": len(adapter.labels),
        "numbers": sum(int(v.size) for v in tuned.values()),
        "tensors": {name: list(value.shape) for name, value in sorted(tuned.items())},
        "golden": 0 if golden is None else len(golden[0]),
    }


def _of_bundle(path: Path) -> dict[str, Any]:
    bundle = open_bundle(path)
    golden = [bundle.golden(name) for name in bundle.adapter_names]
    document = dict(bundle.manifest)
    backbone, adapters = document.pop("backbone"), document.pop("adapters")
    files = document.pop("files")
    return {
        "kind": "bundle",
        "path": str(path),
        "bytes": sum((path / name).stat().st_size for name in files),
        **document,
        "backbone": {key: value for key, value in backbone.items() if key != "spec"},
        "adapters": adapters,
        "files": {name: (path / name).stat().st_size for name in files},
        "classes": max(len(entry["labels"]) for entry in adapters),
        "golden": sum(0 if answers is None else len(answers[0]) for answers in golden),
    }
