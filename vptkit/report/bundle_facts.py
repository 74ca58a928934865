"""What a bundle is, from its manifest and its adapter; nothing is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.cli.texts.inspect_text import bundle_lines, made_of, size_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vptkit.formats.bundle import Bundle

__all__ = ["bundle_facts"]

_ADAPTERS, _FILES = 100, 100  # lines of each, at most


def bundle_facts(path: Path, name: str) -> dict[str, Any]:
    """All that a page says of a bundle without running it; its digests are verified.

    Args:
        path: its folder.
        name: what the page calls it.

    Returns:
        "name"; "path"; "lines", heading → text; "work", bars of multiply-accumulates; "folds" of
        `vptkit.export.analysis.fold_savings.fold_rows`; "block" of `vptkit.export.analysis.block_steps.block_steps`; "files" with their digests;
        "adapters" of a bank; "manifest", its digest; "bytes"; "train", what the adapter notes of its
        making.

    Raises:
        BundleError: no bundle, or one that was changed.
    """
    from vptkit.export.analysis.block_steps import block_steps
    from vptkit.export.analysis.fold_savings import fold_rows
    from vptkit.formats.bundle import open_bundle
    from vptkit.formats.summary import summarize

    bundle = open_bundle(path)
    document = summarize(path)
    train, engines = made_of(path)
    lines = bundle_lines(document, train, engines)
    return {
        "name": name,
        "path": str(path),
        "lines": {**{k: v for k, v in lines.items() if v}, **_stored(bundle)},
        "work": _work(bundle.manifest["macs"]),
        "fold": bundle.manifest["fold"],
        "folds": fold_rows(bundle),
        "block": block_steps(bundle),
        "files": _files(bundle),
        "adapters": _adapters(bundle),
        "manifest": bundle.digest,
        "bytes": document["bytes"],
        "precision": bundle.precision,
        "train": train,
    }


def _stored(bundle: Bundle) -> dict[str, str]:
    """How many numbers the adapter holds; nothing where it is not there, as in a bank."""
    from vptkit.formats.adapter import parse_adapter
    from vptkit.formats.bundle import ADAPTER

    if ADAPTER not in bundle.manifest["files"]:
        return {}
    tensors = parse_adapter(bundle.read(ADAPTER), bundle.path / ADAPTER).tensors
    sizes = [int(v.size) for name, v in tensors.items() if not name.startswith("golden.")]
    return {"stored": f"{sum(sizes):,} numbers of the adapter, in {len(sizes)} tensors"}


def _work(macs: Mapping[str, int]) -> list[dict[str, Any]]:
    """The blocks' multiply-accumulates an image: bars that share a scale."""
    from vptkit.export.analysis.fold_savings import count_text

    known = {
        "bare backbone": macs.get("backbone"),
        "adapter, not folded": macs.get("unfolded"),
        "this graph": macs.get("graph"),
    }
    longest = max((n for n in known.values() if n), default=0)
    return [
        {"name": name, "text": count_text(n), "share": n / longest}
        for name, n in known.items()
        if n
    ]


def _files(bundle: Bundle) -> list[dict[str, str]]:
    files: dict[str, str] = bundle.manifest["files"]
    return [
        {"name": name, "sha256": digest, "size": size_text(bundle.stamps[name].size)}
        for name, digest in sorted(files.items())[:_FILES]
    ]


def _adapters(bundle: Bundle) -> list[list[str]]:
    """Of a bank: name, method, number of classes of each."""
    if bundle.layout != "bank":
        return []
    return [
        [entry["name"], str(entry.get("method", "")), str(len(entry["labels"]))]
        for entry in bundle.manifest["adapters"][:_ADAPTERS]
    ]
