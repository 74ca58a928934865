"""Adapters of a bank added, removed, replaced: one small file and the manifest, nothing else.

The graph, its engine and the other adapters stay as they are. A crash at any point leaves a bundle
that opens: files are written before the manifest names them and removed after it has forgotten them.
Removed are those that the old manifest listed, and what an edit left that was killed: while the lock
is held nobody else writes, so its temporary files, and rows that say their own digest and that no
manifest names, belong to nobody.

One editor at a time holds a lock on the folder, which dies with its process. An export that replaces
the bundle (`atomic_files`) waits for it too, so an edit lands in the bundle that it was meant for.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.atomic_files import locked_folder
from vptkit.backbones.merge_schedule import TokenMerging
from vptkit.errors import AdapterError, BundleError
from vptkit.formats.adapter import read_adapter
from vptkit.formats.backbone_weights import tensor_shapes
from vptkit.formats.bank_tables import NORMS, BankShape, kept_norms, write_rows
from vptkit.formats.bundle import adapter_entry, open_bank, open_bundle, write_manifest
from vptkit.formats.bundle_files import is_row_file, require_closed
from vptkit.formats.manifest_schema import ADAPTERS, MANIFEST
from vptkit.formats.tensor_file import parse_tensor_file
from vptkit.regular_files import names_in, opened_folder

from .adapter_rows import Bank, require_member, rows_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

    from vptkit.formats.adapter import Adapter
    from vptkit.formats.bundle import Bundle

__all__ = ["add", "remove", "replace"]

# What `atomic_file` leaves of a row file, or of a manifest, when its process is killed.
_KILLED = re.compile(
    rf"\.(?:[A-Za-z0-9._-]+-[0-9a-f]{{8}}\.safetensors|{re.escape(MANIFEST)})\..+\.(?:part|lock)"
)


def add(bundle: str | Path, adapter: str | Path, *, name: str | None = None) -> str:
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
    tuned = read_adapter(Path(adapter))
    name = name or tuned.name
    with _editing(Path(bundle)) as opened:
        if name in opened.adapter_names:
            raise AdapterError(
                f"{bundle}: there is an adapter {name!r} already. Use bank replace, or --name."
            )
        entry, digest = _write(opened, tuned, name)
        _publish(opened, [*opened.manifest["adapters"], entry], {entry["file"]: digest})
    return name


def replace(bundle: str | Path, adapter: str | Path, *, name: str | None = None) -> str:
    """Put another adapter in the place of one of the same name; see `add`.

    Raises:
        BundleError: there is no adapter of that name.
    """
    tuned = read_adapter(Path(adapter))
    name = name or tuned.name
    with _editing(Path(bundle)) as opened:
        opened.entry(name)
        entry, digest = _write(opened, tuned, name)
        entries = [entry if e["name"] == name else e for e in opened.manifest["adapters"]]
        _publish(opened, entries, {entry["file"]: digest})
    return name


def remove(bundle: str | Path, name: str) -> None:
    """Remove an adapter; the others keep their answers.

    Raises:
        BundleError: not a bank, no such adapter, or it is the last one.
    """
    with _editing(Path(bundle)) as opened:
        opened.entry(name)
        entries = [e for e in opened.manifest["adapters"] if e["name"] != name]
        if not entries:
            raise BundleError(
                f"{bundle}: {name!r} is the last adapter; a bank keeps at least one. Use bank "
                "replace, or delete the folder."
            )
        _publish(opened, entries, {})


def bank_of(bundle: Bundle) -> Bank:
    """What the adapters of a bundle agree on.

    Raises:
        BundleError: the file of the backbone's norms is not that of this bank.
    """
    entry = bundle.manifest["adapters"][0]
    shape = BankShape.of_manifest(bundle.manifest, bundle.spec)
    return Bank(
        spec=bundle.spec,
        sha256=str(bundle.manifest["backbone"]["sha256"]),
        shape=shape,
        pool=entry["pool"],
        norm=entry["norm"],
        preprocess=bundle.preprocess,
        norms=_norms(bundle, shape),
        task=bundle.task,
        merging=_merging(bundle),
    )


def _merging(bundle: Bundle) -> TokenMerging | None:
    entry = bundle.manifest.get("merging")
    if entry is None:
        return None
    return TokenMerging(schedule=tuple(entry["schedule"]), attention=entry["attention"])


def _norms(bundle: Bundle, shape: BankShape) -> dict[str, NDArray[Any]]:
    """The backbone's own norms: those that an adapter may tune here, and the last one."""
    spec, path = bundle.spec, bundle.path / NORMS
    expected = kept_norms(
        spec, tensor_shapes(spec), layer_norms=bool(shape.norms), linears=shape.linears
    )
    found = parse_tensor_file(bundle.read(NORMS), path, BundleError)[1]
    came = {name: value.shape for name, value in found.items()}
    if came != expected or not all(
        value.dtype.kind == "f" and np.isfinite(value).all() for value in found.values()
    ):
        odd = sorted(name for name in {*came, *expected} if came.get(name) != expected.get(name))
        raise BundleError(
            f"{path}: not the norms of this bank's backbone ({', '.join(odd[:3]) or 'NaN or Inf'}). "
            "Export the bundle again."
        )
    return found


@contextlib.contextmanager
def _editing(path: Path) -> Iterator[Bundle]:
    """Yield the bundle as it is while nobody else edits or replaces it."""
    _require_tables(open_bank(path))  # says what is wrong before anybody waits
    with locked_folder(path) as handle:
        bundle = open_bank(path)  # again: another editor may have been faster
        _require_tables(bundle)
        require_closed(path, handle, bundle.manifest["files"])
        try:
            yield bundle
        finally:
            with contextlib.suppress(
                BundleError, OSError
            ):  # what was to be done is done, or failed
                _sweep(path, bundle.manifest["files"])


def _require_tables(bundle: Bundle) -> None:
    """Refuse a bank whose graph, and engines, would have to be written again."""
    if bundle.constant_tables:
        names = ", ".join(bundle.adapter_names[:10])
        raise BundleError(
            f"{bundle.path}: its tables are constants of the graph, which stays as it was exported "
            f"(adapters {names}). Export it again with the adapters that it shall have: vptkit "
            "export ADAPTER... --layout bank --tables constant --force. Without --tables a bank "
            "can be changed in place."
        )


def _write(bundle: Bundle, adapter: Adapter, name: str) -> tuple[dict[str, Any], str]:
    bank = bank_of(bundle)
    require_member(adapter, bank)
    file, digest = write_rows(bundle.path, name, rows_of(adapter, bank))
    entry = {**adapter_entry(adapter), "name": name, "file": file, "sha256": digest}
    return entry, digest


def _publish(bundle: Bundle, entries: list[dict[str, Any]], new: dict[str, str]) -> None:
    """Replace the manifest; `_editing` then removes the files that it no longer names."""
    named = {entry["file"] for entry in entries}
    before: dict[str, str] = bundle.manifest["files"]
    files = {
        name: digest
        for name, digest in {**before, **new}.items()
        if not name.startswith(f"{ADAPTERS}/") or name in named
    }
    manifest = {k: v for k, v in bundle.manifest.items() if k not in ("format", "files")}
    write_manifest(bundle.path, {**manifest, "adapters": entries}, files)


def _sweep(path: Path, before: Collection[str]) -> None:
    """Remove rows that the manifest has forgotten or never named, and what killed edits left.

    Args:
        path: the bundle.
        before: the files that the manifest listed before the edit.
    """
    kept = open_bundle(path, verify=False).manifest["files"]
    with (
        opened_folder(path, BundleError) as handle,
        opened_folder(path / ADAPTERS, BundleError, within=handle, name=ADAPTERS) as rows,
    ):
        for name in names_in(rows):
            file = f"{ADAPTERS}/{name}"
            if file not in kept and (
                file in before
                or _KILLED.fullmatch(name)
                or is_row_file(path / ADAPTERS, rows, name)
            ):
                _unlink(name, rows)
        for name in names_in(handle):
            if _KILLED.fullmatch(name):
                _unlink(name, handle)


def _unlink(name: str, folder: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
