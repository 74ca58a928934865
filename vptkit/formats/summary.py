"""What an adapter file, a bundle or an engine is, as one document for `vptkit inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import sha256_of_file
from vptkit.errors import BundleError, VptkitError
from vptkit.paths.path_advice import advice
from vptkit.regular_files import is_file, is_folder, read_regular
from vptkit.strict_json import parse_json

from .adapter import parse_adapter, read_adapter
from .bundle import ADAPTER, open_bundle
from .weight_deltas import deltas_told

if TYPE_CHECKING:
    from pathlib import Path

    from .adapter import Adapter

__all__ = ["summarize"]

_RECORD_BYTES = 64 << 20  # of an engine; every layer has a line in it


def summarize(path: Path) -> dict[str, Any]:
    """Describe a file (an adapter, an engine) or a folder (a bundle), after checking it.

    Returns:
        JSON-ready; "kind" is "adapter", "engine" or "bundle".

    Raises:
        VptkitError: there is nothing, or it is broken.
    """
    if is_folder(path):
        return _of_bundle(path)
    if is_file(path):
        return _of_engine(path) if path.suffix == ".engine" else _of_adapter(path)
    plain = f"{path}: no such file or folder. Expected an adapter file, a bundle or an engine."
    raise VptkitError(advice(path, "any") or plain)


def _of_engine(path: Path) -> dict[str, Any]:
    """An engine by its record; the plan itself is TensorRT's own, and needs its GPU."""
    file = path.with_suffix(".json")
    try:
        record = parse_json(read_regular(file, BundleError, limit=_RECORD_BYTES), file, BundleError)
    except BundleError as error:
        raise BundleError(
            f"{path}: has no readable record {file.name} ({error}). Build the engine again."
        ) from error
    if record.get("sha256") != sha256_of_file(path):
        raise BundleError(f"{path}: is not the plan that {file.name} is about. Build it again.")
    layers = record.pop("layers", [])
    count = len(layers) if isinstance(layers, list) else 0
    return {"kind": "engine", "path": str(path), **record, "layers": count}


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
        **_confidence(adapter),
        **_deltas(adapter),
        **_thresholds(adapter),
        **_learned(adapter),
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
    sizes = {name: bundle.stamps[name].size for name in document.pop("files")}
    made_of = parse_adapter(bundle.read(ADAPTER), path / ADAPTER) if ADAPTER in sizes else None
    return {
        "kind": "bundle",
        "path": str(path),
        "bytes": sum(sizes.values()),
        **document,
        "backbone": {key: value for key, value in backbone.items() if key != "spec"},
        "adapters": adapters,
        **_confidence(made_of),
        **_deltas(made_of),
        **_learned(made_of),
        "files": sizes,
        "classes": max(len(entry["labels"]) for entry in adapters),
        "golden": sum(0 if answers is None else len(answers[0]) for answers in golden),
    }


def _thresholds(adapter: Adapter) -> dict[str, Any]:
    """Those of an adapter for several labels an image; a bundle has them beside its labels."""
    found = adapter.thresholds
    return {} if found is None else {"thresholds": found.tolist()}


def _deltas(adapter: Adapter | None) -> dict[str, Any]:
    """What an adapter's weight deltas are; nothing if it has none."""
    told = None if adapter is None else deltas_told(adapter.tensors)
    return {} if told is None else {"deltas": told}


def _learned(adapter: Adapter | None) -> dict[str, Any]:
    """In how many blocks an adapter has learned keys and values, and how many; nothing without."""
    counts = {} if adapter is None else adapter.learned_counts()
    if not counts:
        return {}
    told = {"blocks": len(counts), "counts": [min(counts.values()), max(counts.values())]}
    return {"learned_keys_values": told}


def _confidence(adapter: Adapter | None) -> dict[str, Any]:
    """The temperature in an adapter's head, and what it did on val; nothing if none is noted."""
    noted = None if adapter is None else adapter.train.get("confidence")
    return {} if noted is None else {"confidence": noted}
