"""Adapters of a bank added, removed, replaced: one small file and the manifest, nothing else.

The graph, its engine and the other adapters stay as they are. A crash at any point leaves a bundle
that opens: files are written before the manifest names them and removed after it has forgotten them.
One editor at a time holds a lock on the folder, which dies with its process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Any

from vptkit.errors import AdapterError, BundleError
from vptkit.formats.adapter import read_adapter
from vptkit.formats.bank_tables import FOLDER, NORMS, BankShape, write_rows
from vptkit.formats.bundle import adapter_entry, open_bundle, write_manifest
from vptkit.formats.tensor_file import read_tensors

from .adapter_rows import Bank, require_member, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vptkit.formats.adapter import Adapter
    from vptkit.formats.bundle import Bundle

__all__ = ["add", "remove", "replace"]


def add(bundle: Path, adapter: Path, *, name: str | None = None) -> str:
    """Add an adapter.

    Args:
        bundle: of the bank layout.
        adapter: a file; of the backbone that the bank was made of.
        name: instead of the adapter's own.

    Returns:
        Its name in the bank.

    Raises:
        AdapterError, BackboneError: the adapter does not fit, or the name is taken.
        BundleError: not a bank.
        OutputError: the disk is full or not writable.
    """
    tuned = read_adapter(adapter)
    name = name or tuned.name
    with _editing(bundle) as opened:
        if name in opened.adapter_names:
            raise AdapterError(
                f"{bundle}: there is an adapter {name!r} already. Use bank replace, or --name."
            )
        entry, digest = _write(opened, tuned, name)
        _publish(opened, [*opened.manifest["adapters"], entry], {entry["file"]: digest})
    return name


def replace(bundle: Path, adapter: Path, *, name: str | None = None) -> str:
    """Put another adapter in the place of one of the same name; see `add`.

    Raises:
        BundleError: there is no adapter of that name.
    """
    tuned = read_adapter(adapter)
    name = name or tuned.name
    with _editing(bundle) as opened:
        opened.entry(name)
        entry, digest = _write(opened, tuned, name)
        entries = [entry if e["name"] == name else e for e in opened.manifest["adapters"]]
        _publish(opened, entries, {entry["file"]: digest})
    return name


def remove(bundle: Path, name: str) -> None:
    """Remove an adapter; the others keep their answers.

    Raises:
        BundleError: not a bank, no such adapter, or it is the last one.
    """
    with _editing(bundle) as opened:
        opened.entry(name)
        entries = [e for e in opened.manifest["adapters"] if e["name"] != name]
        if not entries:
            raise BundleError(
                f"{bundle}: {name!r} is the last adapter; a bank keeps at least one. Use bank "
                "replace, or delete the folder."
            )
        _publish(opened, entries, {})


def bank_of(bundle: Bundle) -> Bank:
    """What the adapters of a bundle agree on."""
    entry = bundle.manifest["adapters"][0]
    return Bank(
        spec=bundle.spec,
        sha256=str(bundle.manifest["backbone"]["sha256"]),
        shape=BankShape.of_manifest(bundle.manifest, bundle.spec),
        pool=entry["pool"],
        norm=entry["norm"],
        preprocess=bundle.preprocess,
        norms=read_tensors(bundle.path / NORMS, BundleError),
    )


@contextlib.contextmanager
def _editing(path: Path) -> Iterator[Bundle]:
    """Yield the bundle as it is while nobody else edits it."""
    open_bundle(path, verify=False)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        bundle = open_bundle(path, verify=False)  # again: another editor may have been faster
        if bundle.layout != "bank":
            raise BundleError(
                f"{path}: layout {bundle.layout!r}, only a bank can be edited. Export the adapters "
                "with --layout bank."
            )
        yield bundle
    finally:
        os.close(handle)


def _write(bundle: Bundle, adapter: Adapter, name: str) -> tuple[dict[str, Any], str]:
    bank = bank_of(bundle)
    require_member(adapter, bank)
    file, digest = write_rows(bundle.path, name, rows_of(adapter, bank))
    entry = {**adapter_entry(adapter), "name": name, "file": file, "sha256": digest}
    return entry, digest


def _publish(bundle: Bundle, entries: list[dict[str, Any]], new: dict[str, str]) -> None:
    """Replace the manifest, then remove the files that it no longer names."""
    named = {entry["file"] for entry in entries}
    files = {
        name: digest
        for name, digest in {**bundle.manifest["files"], **new}.items()
        if not name.startswith(f"{FOLDER}/") or name in named
    }
    manifest = {k: v for k, v in bundle.manifest.items() if k not in ("format", "files")}
    write_manifest(bundle.path, {**manifest, "adapters": entries}, files)
    for path in (bundle.path / FOLDER).iterdir():  # leftovers of a crash among them
        if f"{FOLDER}/{path.name}" not in named:
            path.unlink(missing_ok=True)
