"""What `vptkit export --target web` wrote, by the manifest of its folder (`web_folder`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import sha256_of_stream
from vptkit.errors import BundleError
from vptkit.formats.manifest_schema import CLASSES, DIGEST, MANIFEST, NAME
from vptkit.regular_files import open_inside, read_bounded
from vptkit.schema import anything, choice, list_of, mapping, record, require, text
from vptkit.strict_json import parse_json

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["WEB_FORMAT", "read_web_manifest", "summarize_web"]

WEB_FORMAT = "vptkit.web/1"
_BYTES = 64 << 20
_TOLD = ("name", "backbone", "precision", "layout", "bundle")
_OTHERS = anything(values=1_000_000, depth=8, letters=10_000)
_ADAPTER = record({"name": NAME, "labels": list_of(text(10_000), CLASSES, least=1)}, others=_OTHERS)
_MODEL = record(
    {
        "name": NAME,
        "backbone": text(200),
        "precision": text(20),
        "layout": text(20),
        "bundle": record({"manifest_sha256": DIGEST}, others=_OTHERS),
        "adapters": list_of(_ADAPTER, 100_000, least=1),
    },
    others=_OTHERS,
)
_MANIFEST = record(
    {
        "format": choice(WEB_FORMAT),
        "models": list_of(_MODEL, 1000, least=1),
        "versions": mapping(text(200), text(200), 100),
        "files": mapping(text(500, least=1), DIGEST, 200_000),
    }
)


def read_web_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of such a folder; None where it is something else.

    Raises:
        BundleError: it says what none can.
    """
    try:
        with open_inside(folder, MANIFEST, BundleError) as stream:
            content = read_bounded(stream, folder / MANIFEST, BundleError, limit=_BYTES)
        found = parse_json(content, folder / MANIFEST, BundleError)
    except BundleError:
        return None
    if found.get("format") != WEB_FORMAT:
        return None
    require(found, _MANIFEST, folder / MANIFEST, BundleError)
    return found


def summarize_web(folder: Path) -> dict[str, Any] | None:
    """Such a folder for `vptkit inspect`, after comparing its files with their digests.

    Returns:
        JSON-ready, "kind" is "web"; None where it is something else.

    Raises:
        BundleError: a file is missing or was changed.
    """
    manifest = read_web_manifest(folder)
    if manifest is None:
        return None
    sizes = _verified_sizes(folder, manifest)
    models = [
        {key: model[key] for key in _TOLD}
        | {"adapters": [entry["name"] for entry in model["adapters"]]}
        for model in manifest["models"]
    ]
    return {
        "kind": "web",
        "path": str(folder),
        "bytes": sum(sizes.values()),
        "models": models,
        "versions": manifest["versions"],
        "files": sizes,
    }


def _verified_sizes(folder: Path, manifest: dict[str, Any]) -> dict[str, int]:
    """Name → bytes of each file that is listed, after comparing it with its digest.

    Raises:
        BundleError: one is missing, no regular file, or another.
    """
    sizes = {}
    for name, digest in manifest["files"].items():
        with open_inside(folder, name, BundleError) as stream:
            found, sizes[name] = sha256_of_stream(stream), stream.seek(0, 2)
        if found != digest:
            raise BundleError(
                f"{folder}: {name} differs from its digest in {MANIFEST}: it was changed or damaged. Export "
                "it again."
            )
    return sizes
