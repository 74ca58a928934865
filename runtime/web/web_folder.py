"""A folder that any web server can serve: the page, graphs, onnxruntime-web, and what says so.

index.html, page.css, page.js, words.js   the page of `vptkit serve --ui`
source.js, graph_worker.js, …             where its answers come from: the graph, in the browser
models/N/                                 a graph, and of a bank what each adapter feeds
onnxruntime-web/                          of the npm package, with its licence
manifest.json                             what all this is: bundles, digests, versions
_headers                                  for hosts that read it: what threads need
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_folder, require_absent, require_writable, sha256_of_file
from vptkit.errors import OutputError, VptkitError
from vptkit.formats.bundle import open_bundle, read_steadily
from vptkit.formats.manifest_schema import MANIFEST
from vptkit.progress import no_phases
from vptkit.regular_files import is_folder
from vptkit.shown_text import shown

from .onnxruntime_web import PACKAGE, find_library, library_files, web_name
from .page_files import GRAPH_PAGE, page_file
from .page_models import model_names, page_model, require_web
from .web_manifest import WEB_FORMAT, read_web_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vptkit.formats.bundle import Bundle
    from vptkit.progress import Phases

    from .onnxruntime_web import Library

__all__ = ["require_place", "sizes_of", "write_web"]

_LICENSE = "LICENSE.txt"
_HEADERS = """\
/*
  Cross-Origin-Opener-Policy: same-origin
  Cross-Origin-Embedder-Policy: require-corp
"""
_ATTEMPTS = 20  # at a bundle that is exported or edited meanwhile


def write_web(
    bundles: Sequence[str | Path],
    output: str | Path,
    *,
    onnxruntime_web: str | Path | None = None,
    force: bool = False,
    phase: Phases = no_phases,
) -> dict[str, Any]:
    """Write the folder.

    Args:
        bundles: folders NAME.vptk, a model of the page each.
        output: appears whole or not at all.
        onnxruntime_web: the npm package, unpacked; else of the cache, or fetched by npm.
        force: replace such a folder, or an empty one.
        phase: is told what takes long.

    Returns:
        The manifest.

    Raises:
        TargetError: a bundle that the page cannot run; the message says what to export instead.
        BundleError: a bundle is damaged.
        OutputError: the output exists (with force: and is something else), or cannot be written.
        MissingError: onnxruntime-web is not there, and cannot be fetched.
    """
    output = Path(output)
    require_place(output, force=force)
    paths = [Path(bundle) for bundle in bundles]
    if not paths:
        raise VptkitError("no bundle was given, expected at least one")
    opened = [open_bundle(path, verify=False) for path in paths]
    for bundle in opened:
        require_web(bundle)
    names = model_names(opened)
    library = find_library(None if onnxruntime_web is None else Path(onnxruntime_web), phase)
    with atomic_folder(output, force=force) as folder:
        for name in GRAPH_PAGE:
            (folder / name).write_bytes(page_file(name, GRAPH_PAGE))
        (folder / "_headers").write_text(_HEADERS, encoding="ascii")
        _write_library(folder / PACKAGE, library)
        models = [_model(path, names[i], i, folder) for i, path in enumerate(paths)]
        return _write_manifest(folder, models, library)


def require_place(output: Path, *, force: bool) -> None:
    """Refuse a place before a long export: one that is taken, or cannot be written.

    Raises:
        OutputError: it exists, and force is off or it is no such folder.
    """
    require_absent(output, force=force)
    if os.path.lexists(output) and not _is_own(output):
        raise OutputError(
            f"{shown(output)}: is no folder that --target web wrote, so --force does not replace it. Remove it "
            "first, or choose another name."
        )
    require_writable(output)


def sizes_of(folder: Path, manifest: Mapping[str, Any]) -> dict[str, int]:
    """Bytes that a visitor loads at most, all models and adapters: with WebAssembly, with WebGPU."""
    sizes = {name: (folder / name).stat().st_size for name in manifest["files"]}
    return {
        way: sum(size for name, size in sizes.items() if name not in others)
        for way, others in (("wasm", library_files("webgpu")), ("webgpu", library_files("wasm")))
    }


def _is_own(path: Path) -> bool:
    """Whether it may be replaced: one of ours, or empty; no link."""
    if path.is_symlink() or not is_folder(path):
        return False
    with os.scandir(path) as entries:
        empty = next(entries, None) is None
    return empty or read_web_manifest(path) is not None


def _write_library(place: Path, library: Library) -> None:
    place.mkdir()
    for name, content in library.files.items():
        (place.parent / web_name(name)).write_bytes(content)
    (place / _LICENSE).write_bytes(page_file(_LICENSE, {_LICENSE: f"{PACKAGE}.{_LICENSE}"}))


def _model(path: Path, name: str, number: int, folder: Path) -> dict[str, Any]:
    """One bundle, read as a whole; what an earlier attempt wrote is replaced."""

    def read() -> dict[str, Any]:
        bundle: Bundle = open_bundle(path)
        require_web(bundle)
        return page_model(bundle, name, number, folder)

    return read_steadily(path, read, _ATTEMPTS)


def _write_manifest(
    folder: Path, models: Sequence[Mapping[str, Any]], library: Library
) -> dict[str, Any]:
    from vptkit import __version__

    names = sorted(path for path in folder.rglob("*") if path.is_file())
    document = {
        "format": WEB_FORMAT,
        "models": list(models),
        "versions": {"vptkit": __version__, PACKAGE: library.version},
        "files": {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in names},
    }
    text = json.dumps(document, sort_keys=True, indent=1, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="ascii")
    return document
