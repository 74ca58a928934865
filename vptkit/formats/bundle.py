"""The bundle `NAME.vptk/`: the folder that ships, held together by its manifest.

model.onnx            the typed graph
manifest.json         what it is: digests of every file, labels, preprocessing, folds, parity
adapter.safetensors   the adapter it was compiled from
golden.safetensors    the reference's own answers (if the adapter carried them)
rejection.safetensors what the images are like that it is for (`export --reject-from`)

engines/              TensorRT engines of this machine (`runtime.backends.engine_cache`), if any were built

A bank (`bank_tables`) has norms.safetensors and adapters/*.safetensors instead of the last two.
What a manifest may say is in `manifest_schema`, what a folder may hold in `bundle_files`; neither is
taken on trust, as bundles are passed around.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from vptkit.atomic_files import atomic_file, recover_folder, sha256_of_file
from vptkit.errors import AdapterError, BackboneError, BundleError
from vptkit.images.preprocess import Preprocess
from vptkit.paths.path_advice import advice
from vptkit.paths.path_kind import kind_of
from vptkit.regular_files import open_inside, opened_folder, read_bounded
from vptkit.schema import abridged
from vptkit.strict_json import parse_json

from .backbone_spec import BackboneSpec
from .bank_tables import BankShape
from .bundle_files import checked_file, graph_path, verify_files
from .manifest_schema import (
    ENGINES,
    FEATURES,
    FIELDS,
    FORMAT,
    LOGITS,
    MANIFEST,
    MODEL,
    MODEL_DATA,
    OPTIONAL,
    SCORES,
    SINGLE,
    require_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from vptkit.regular_files import Stamp

    from .adapter import Adapter
    from .manifest_schema import Task

__all__ = [
    "ADAPTER",
    "ENGINES",
    "FEATURES",
    "FORMAT",
    "GOLDEN",
    "LOGITS",
    "MANIFEST",
    "MODEL",
    "REJECTION",
    "SCORES",
    "Bundle",
    "adapter_entry",
    "open_bank",
    "open_bundle",
    "read_steadily",
    "task_entry",
    "write_manifest",
]

GOLDEN = "golden.safetensors"
ADAPTER = "adapter.safetensors"
REJECTION = "rejection.safetensors"
_MANIFEST_BYTES = 32 << 20  # ImageNet-21k's labels fifty times
_T = TypeVar("_T")
_ATTEMPTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """An opened bundle.

    Attributes:
        path: the folder.
        manifest: the whole document; what programs need often has a property below.
        spec: the backbone.
        preprocess: what to do to an image.
        digest: SHA-256 of the manifest itself.
        stamps: name → stamp of each file that was compared with its digest (`bundle_files`);
            `graph` adds those of its files.
    """

    path: Path
    manifest: dict[str, Any] = field(repr=False)
    spec: BackboneSpec
    preprocess: Preprocess
    digest: str = field(default="", repr=False, compare=False)
    stamps: dict[str, Stamp] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Short name."""
        return str(self.manifest["name"])

    @property
    def model(self) -> Path:
        """The ONNX file, for messages; to read it: `graph`, or `read`."""
        return self.path / MODEL

    @property
    def graph_files(self) -> dict[str, str]:
        """The files that make the graph, and their digests."""
        files: dict[str, str] = self.manifest["files"]
        return {name: files[name] for name in (MODEL, MODEL_DATA) if name in files}

    def opened(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """A listed file, open; its bytes are those of the manifest.

        Raises:
            BundleError: it is not listed, no regular file, or was changed; see
                `bundle_files.checked_file`.
        """
        return checked_file(self.path, name, self.manifest["files"], self.stamps.get(name))

    def read(self, name: str) -> bytes:
        """All of a listed file.

        Raises:
            BundleError: see `opened`.
        """
        with self.opened(name) as stream:
            return stream.read()

    def graph(self) -> contextlib.AbstractContextManager[Path]:
        """A path of the graph for a library that opens by name; see `bundle_files.graph_path`.

        Raises:
            BundleError: see `opened`.
        """
        return graph_path(self.path, self.manifest["files"], self.stamps)

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
    def task(self) -> Task:
        """Whether an image has one label ("single"), or any number of them ("multilabel")."""
        found: Task = self.manifest.get("task", SINGLE)
        return found

    def thresholds_of(self, adapter: str | None) -> NDArray[np.float32] | None:
        """The score from which on each label of one adapter is given, [C]; None of one label an image.

        Raises:
            BundleError: see `entry`.
        """
        found = self.entry(adapter).get("thresholds")
        return None if found is None else np.asarray(found, dtype=np.float32)

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
    def fed(self) -> tuple[str, ...]:
        """Names of what the graph takes at each run: all its inputs but tables that are constant."""
        values = self.manifest["inputs"]
        return tuple(str(value["name"]) for value in values if not value.get("constant"))

    @property
    def constant_tables(self) -> bool:
        """Whether it is a bank whose tables are constants of its graph."""
        return len(self.fed) < len(self.manifest["inputs"])

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the graph gives: "logits" [B, C], "features" [B, f], or both.

        With several labels an image, "scores" [B, C] stand behind the logits.
        """
        return tuple(str(value["name"]) for value in self.manifest["outputs"])

    @property
    def features(self) -> int | None:
        """How many numbers a feature vector has; None of a bundle that gives none."""
        sizes = {value["name"]: int(value["shape"][1]) for value in self.manifest["outputs"]}
        return sizes.get(FEATURES)

    @property
    def normalized(self) -> bool:
        """Whether the features have the length 1."""
        return any(bool(value.get("normalized")) for value in self.manifest["outputs"])

    def require_output(self, name: str) -> None:
        """Refuse to go on with a bundle that does not give an output.

        Raises:
            BundleError: it gives another; the message says how it gives both.
        """
        if name in self.outputs:
            return
        if name == SCORES and LOGITS in self.outputs:
            raise BundleError(
                f"{self.path}: gives no scores: its adapter has one label an image. Scores are of "
                "adapters with several (vptkit tune --task multilabel)."
            )
        whose = "the bank" if self.layout == "bank" else "the adapter"
        raise BundleError(
            f"{self.path}: gives {' and '.join(self.outputs)}, no {name}. Export {whose} again "
            "with --output both, which gives logits and features."
        )

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
        from .tensor_file import parse_tensor_file

        tensors = parse_tensor_file(self.read(file), self.path / file, BundleError)[1]
        images, logits = (tensors.get(f"{prefix}{name}") for name in ("images", "logits"))
        if images is None and logits is None:
            return None
        self._require_golden(self.path / file, images, logits)
        return images, logits  # type: ignore[return-value]

    def golden_features(self) -> NDArray[np.float32] | None:
        """The features of the golden images [G, f]; None where the bundle carries none.

        They are those of the fp32 graph on the exporter's processor, of which the golden logits
        were proven to follow (`vptkit.export.bundle.golden_features`).

        Raises:
            BundleError: they are not of the golden images, or of another length than the graph's.
        """
        found = self.golden() if self.layout == "baked" and self.features is not None else None
        if found is None:
            return None
        from .tensor_file import parse_tensor_file

        file = self.path / GOLDEN
        features = parse_tensor_file(self.read(GOLDEN), file, BundleError)[1].get(FEATURES)
        if features is None:
            return None
        expected = (len(found[0]), self.features)
        if features.shape != expected or features.dtype.kind != "f":
            raise BundleError(
                f"{file}: golden features are {features.dtype} {list(features.shape)}, expected "
                f"float {list(expected)}. Export the bundle again."
            )
        return features

    def _require_golden(self, file: Path, images: Any, logits: Any) -> None:
        """Refuse answers to other images than the graph takes."""
        height, width = self.preprocess.size
        found = [None if v is None else (str(v.dtype), *v.shape) for v in (images, logits)]
        count = len(images) if images is not None and images.ndim else 0
        if (
            found[0] != ("uint8", count, height, width, 3)
            or logits is None
            or logits.ndim != 2
            or logits.dtype.kind != "f"
            or len(logits) != count
        ):
            raise BundleError(
                f"{file}: golden images and logits are {found}, expected uint8 [G, {height}, "
                f"{width}, 3] and float [G, C]. Export the bundle again."
            )


def open_bundle(path: Path, *, verify: bool = True, graph_later: bool = False) -> Bundle:
    """Open a bundle; with verify its files are compared with the manifest, all of them.

    An export or an edit at the same time does no harm: what is opened is the bundle before it, or
    the one after it.

    Args:
        path: the bundle.
        verify: compare.
        graph_later: but for the graph: whoever loads it through `Bundle.graph` compares it then.

    Raises:
        BundleError: not a bundle, another format, a manifest that says what none can; with verify
            also a file that is missing, changed, not listed, or no regular file.
    """

    def read() -> Bundle:
        with _folder(path) as handle:
            bundle = _parsed(path, _read_manifest(path, handle))
            if not verify:
                return bundle
            files = bundle.manifest["files"]
            stamps = verify_files(path, handle, files, graph=not graph_later)
            return replace(bundle, stamps=stamps)

    return read_steadily(path, read, _ATTEMPTS)


def open_bank(path: Path) -> Bundle:
    """Open a bank; its files are compared when they are read.

    Raises:
        BundleError: as `open_bundle`; or a baked bundle.
    """
    bundle = open_bundle(path, verify=False)
    if bundle.layout != "bank":
        raise BundleError(advice(path, "bank") or f"{path}: not a bank")
    return bundle


def read_steadily(path: Path, read: Callable[[], _T], attempts: int) -> _T:
    """What is read of a bundle, once more where it was exported again or edited meanwhile.

    Args:
        path: the bundle.
        read: reads all of it anew at each call.
        attempts: at a bundle that is exchanged, or edited, again and again.

    Raises:
        BundleError: as `read` raised it while nobody was at the bundle.
    """
    for _ in range(attempts - 1):
        state = _state(path)
        try:
            return read()
        except BundleError:
            if state == _state(path):
                raise
    return read()


def adapter_entry(adapter: Adapter) -> dict[str, Any]:
    """What the manifest says about one adapter; a bank adds its `file` and `sha256`."""
    thresholds = adapter.thresholds
    return {
        **({} if thresholds is None else {"thresholds": [float(value) for value in thresholds]}),
        "name": adapter.name,
        "method": adapter.method,
        "insert": adapter.insert,
        "prompt_length": adapter.prompt_length,
        "pool": adapter.pool,
        "norm": adapter.norm,
        "labels": list(adapter.labels),
    }


def task_entry(task: Task) -> dict[str, Any]:
    """What the manifest says about a task: nothing of one label an image, as before there were others."""
    return {} if task == SINGLE else {"task": task}


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
        BundleError: fields are missing or unknown, or say what none can.
    """
    files = files or {
        str(p.relative_to(folder)): sha256_of_file(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != MANIFEST and p.relative_to(folder).parts[0] != ENGINES
    }
    document = {"format": FORMAT, **manifest, "files": files}
    _require_fields(document, folder / MANIFEST)
    require_manifest(document, folder / MANIFEST)
    text = json.dumps(document, sort_keys=True, indent=1, allow_nan=False)
    with atomic_file(folder / MANIFEST) as part:
        part.write_text(text + "\n", encoding="ascii")
    return files


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[int]:
    if not path.is_dir():
        recover_folder(path)
        if not path.is_dir():
            raise BundleError(_no_bundle(path))
    with opened_folder(path, BundleError) as handle:
        yield handle


def _no_bundle(path: Path) -> str:
    plain = f"{path}: not a bundle: no {MANIFEST}. Expected the output of vptkit export."
    return advice(path, "bundle") or plain


def _state(path: Path) -> tuple[int, ...]:
    """What changes when a bundle is exported again, or edited."""
    try:
        folder, manifest = path.stat(), (path / MANIFEST).lstat()
    except (OSError, ValueError):
        return ()
    return (
        *(folder.st_dev, folder.st_ino, folder.st_ctime_ns),
        *(manifest.st_ino, manifest.st_mtime_ns, manifest.st_ctime_ns),
    )


def _read_manifest(path: Path, handle: int) -> bytes:
    try:
        with open_inside(path, MANIFEST, BundleError, handle=handle) as stream:
            return read_bounded(stream, path / MANIFEST, BundleError, limit=_MANIFEST_BYTES)
    except BundleError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise BundleError(_no_bundle(path)) from error
        raise


def _parsed(path: Path, text: bytes) -> Bundle:
    """A bundle by its manifest, of which all is checked."""
    file = path / MANIFEST
    manifest = parse_json(text, file, BundleError)
    if manifest.get("format") != FORMAT:
        other = (
            f"{path}: format is {abridged(manifest.get('format'))}, this vptkit reads {FORMAT!r}"
        )
        page = advice(path, "bundle") if kind_of(path).kind == "web" else None
        raise BundleError(page or other)
    _require_fields(manifest, file)
    require_manifest(manifest, file)
    try:
        spec = BackboneSpec.from_json(manifest["backbone"]["spec"])
        preprocess = Preprocess.from_json(manifest["preprocess"])
        if manifest["layout"] == "bank":
            BankShape.of_manifest(manifest, spec)
    except (AdapterError, BackboneError, BundleError) as error:
        raise BundleError(f"{file}: {error}") from error
    height, width = preprocess.size
    shapes = {"images": [height, width, 3], "pixels": [3, height, width]}
    first = manifest["inputs"][0]
    if spec.image_size != preprocess.size or first["shape"][1:] != shapes[first["name"]]:
        raise BundleError(
            f"{file}: preprocess makes images of {preprocess.size}, the backbone takes "
            f"{spec.image_size} and the graph {first['shape']}. Export the bundle again."
        )
    digest = hashlib.sha256(text).hexdigest()
    return Bundle(path=path, manifest=manifest, spec=spec, preprocess=preprocess, digest=digest)


def _require_fields(manifest: dict[str, Any], file: Path) -> None:
    if odd := set(FIELDS) ^ (set(manifest) - set(OPTIONAL)):
        raise BundleError(
            f"{file}: fields {sorted(odd)[:20]} are amiss: written by "
            "another version of vptkit. Export the bundle again."
        )
