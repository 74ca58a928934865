"""The bundle `NAME.vptk/`: the folder that ships, held together by its manifest.

model.onnx            the typed graph
manifest.json         what it is: digests of every file, labels, preprocessing, folds, parity
adapter.safetensors   the adapter it was compiled from
golden.safetensors    the reference's own answers (if the adapter carried them)

engines/              TensorRT engines of this machine (`runtime.backends.engine_cache`), if any were built

A bank (`bank_tables`) has norms.safetensors and adapters/*.safetensors instead of the last two.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_file, sha256_of_file
from vptkit.errors import AdapterError, BackboneError, BundleError
from vptkit.images.preprocess import Preprocess

from .backbone_spec import BackboneSpec

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from .adapter import Adapter

__all__ = [
    "FORMAT",
    "MANIFEST",
    "MODEL",
    "Bundle",
    "adapter_entry",
    "open_bundle",
    "write_manifest",
]

FORMAT = "vptkit.bundle/1"
MANIFEST = "manifest.json"
MODEL = "model.onnx"
GOLDEN = "golden.safetensors"
ADAPTER = "adapter.safetensors"
ENGINES = "engines"  # a cache of one machine, no part of what the manifest vouches for
_KEYS = frozenset(
    [
        "format",
        "name",
        "files",
        "backbone",
        "adapters",
        "preprocess",
        "inputs",
        "outputs",
        "precision",
        "lowering",
        "gate",
        "layout",
        "batch",
        "fold",
        "folds",
        "macs",
        "memory",
        "parity",
        "versions",
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """An opened bundle.

    Attributes:
        path: the folder.
        manifest: the whole document; what programs need often has a property below.
        spec: the backbone.
        preprocess: what to do to an image.
    """

    path: Path
    manifest: dict[str, Any] = field(repr=False)
    spec: BackboneSpec
    preprocess: Preprocess

    @property
    def name(self) -> str:
        """Short name."""
        return str(self.manifest["name"])

    @property
    def model(self) -> Path:
        """The ONNX file."""
        return self.path / MODEL

    @property
    def labels(self) -> tuple[str, ...]:
        """C class names of the only adapter; see `entry`."""
        return self.labels_of(None)

    @property
    def layout(self) -> str:
        """Either baked (one adapter, constants) or bank (many, looked up)."""
        return str(self.manifest["layout"])

    def entry(self, adapter: str | None = None) -> dict[str, Any]:
        """What the manifest says about one adapter: the only one unless named.

        Raises:
            BundleError: there is no such adapter, or there are several and none is named.
        """
        names = self.adapter_names
        if adapter is None and len(names) > 1:
            raise BundleError(
                f"{self.path}: holds {len(names)} adapters, {', '.join(names[:10])}: name one "
                "(--adapter)"
            )
        if adapter not in (None, *names):
            raise BundleError(f"{self.path}: no adapter {adapter!r}, only {', '.join(names)}")
        found: dict[str, Any] = self.manifest["adapters"][names.index(adapter) if adapter else 0]
        return found

    def labels_of(self, adapter: str | None) -> tuple[str, ...]:
        """C class names of one adapter.

        Raises:
            BundleError: see `entry`.
        """
        return tuple(self.entry(adapter)["labels"])

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """Names of the adapters in the graph."""
        return tuple(adapter["name"] for adapter in self.manifest["adapters"])

    @property
    def precision(self) -> str:
        """Type of the graph, such as fp32."""
        return str(self.manifest["precision"])

    @property
    def input(self) -> str:
        """Name of the input: images (uint8 [B, H, W, 3]) or pixels (float32 [B, 3, H, W])."""
        return str(self.manifest["inputs"][0]["name"])

    @property
    def batch(self) -> int | None:
        """The fixed batch size, or None if it is free."""
        batch = self.manifest["batch"]
        return None if batch == "dynamic" else int(batch)

    def golden(
        self, adapter: str | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
        """The reference's own answers for one adapter: uint8 [G, H, W, 3] and float32 [G, C].

        Returns:
            None if the adapter carried none.

        Raises:
            BundleError: see `entry`.
        """
        file, prefix = self.entry(adapter).get("file", GOLDEN), "golden."
        if file == GOLDEN:
            prefix = ""
        if file not in self.manifest["files"]:
            return None
        # A board that only runs bundles may lack safetensors.
        from .tensor_file import read_tensors

        tensors = read_tensors(self.path / file, BundleError)
        if f"{prefix}images" not in tensors:
            return None
        return tensors[f"{prefix}images"], tensors[f"{prefix}logits"]


def open_bundle(path: Path, *, verify: bool = True) -> Bundle:
    """Open a bundle; with verify the digest of every file is compared.

    Raises:
        BundleError: not a bundle, another format, a file missing or changed.
    """
    manifest = _read_manifest(path)
    while verify:
        try:
            _require_files(path, manifest)
            break
        except BundleError:
            # a bank may be edited while it is opened; then the next manifest holds
            before, manifest = manifest, _read_manifest(path)
            if manifest == before:
                raise
    try:
        return Bundle(
            path=path,
            manifest=manifest,
            spec=BackboneSpec.from_json(manifest["backbone"]["spec"]),
            preprocess=Preprocess.from_json(manifest["preprocess"]),
        )
    except (AdapterError, BackboneError) as error:
        raise BundleError(f"{path}: {MANIFEST}: {error}") from error


def adapter_entry(adapter: Adapter) -> dict[str, Any]:
    """What the manifest says about one adapter; a bank adds its `file` and `sha256`."""
    return {
        "name": adapter.name,
        "method": adapter.method,
        "insert": adapter.insert,
        "prompt_length": adapter.prompt_length,
        "pool": adapter.pool,
        "norm": adapter.norm,
        "labels": list(adapter.labels),
    }


def write_manifest(
    folder: Path, manifest: dict[str, Any], files: dict[str, str] | None = None
) -> dict[str, str]:
    """Write manifest.json: the given fields, and the digest of every other file in the folder.

    Args:
        folder: the bundle.
        manifest: every field but "format" and "files".
        files: the digests, if nothing but the manifest changed since they were taken.

    Returns:
        The digests.

    Raises:
        BundleError: fields are missing or unknown.
    """
    files = files or {
        str(p.relative_to(folder)): sha256_of_file(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != MANIFEST and p.relative_to(folder).parts[0] != ENGINES
    }
    document = {"format": FORMAT, **manifest, "files": files}
    if set(document) != _KEYS:
        raise BundleError(f"manifest fields {sorted(set(document) ^ _KEYS)} are amiss")
    text = json.dumps(document, sort_keys=True, indent=1, allow_nan=False)
    with atomic_file(folder / MANIFEST) as part:
        part.write_text(text + "\n", encoding="ascii")
    return files


def _require_files(path: Path, manifest: dict[str, Any]) -> None:
    for name, digest in manifest["files"].items():
        file = path / name
        try:
            found = sha256_of_file(file)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise BundleError(f"{path}: {name} is missing. Export the bundle again.") from error
        if found != digest:
            raise BundleError(
                f"{path}: {name} differs from its digest in {MANIFEST}: it was changed or "
                "damaged. Export the bundle again."
            )


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    if not file.is_file():
        raise BundleError(f"{path}: not a bundle: no {MANIFEST}. Expected the output of export.")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"{file}: not valid JSON ({error}). Export the bundle again.") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise BundleError(f"{path}: format is {found!r}, this vptkit reads {FORMAT!r}")
    if set(manifest) != _KEYS:
        raise BundleError(
            f"{file}: fields {sorted(set(manifest) ^ _KEYS)} are amiss: written by another version "
            "of vptkit. Export the bundle again."
        )
    return dict(manifest)
