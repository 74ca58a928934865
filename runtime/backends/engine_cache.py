"""Built engines on disk: what each was built of and for, and which of them fits here.

Below `BUNDLE/engines/`, or `$VPTKIT_CACHE/<graph digest>/` if that is set, lie

DIGEST.engine       TensorRT's plan
DIGEST.json         its record: the key (library, version, GPU, graph, options), readable, and what
                    became of it (digest, layers, seconds); written last, so it is the commit
LIBRARY-….timing    kernel times, kept for the next build

DIGEST is of the key. An engine is loaded only where its whole key fits; one that does not is named
with the reason, never tried. The digests find damage, not malice: loading a plan is running machine
code, so a plan is to be trusted as a program is.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_file, sha256_of_file
from vptkit.errors import MissingError, OutputError
from vptkit.formats.bundle import ENGINES, MODEL
from vptkit.part_files import remove_dead_parts
from vptkit.strict_json import canonical_json

from .tensorrt_library import LIBRARIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vptkit.devices.drivers.cuda import Gpu
    from vptkit.formats.bundle import Bundle

__all__ = [
    "CACHE_VARIABLE",
    "Engine",
    "Here",
    "Key",
    "ask_for",
    "build_command",
    "engine_folder",
    "exclusive",
    "find_engine",
    "graph_digest",
    "list_engines",
    "remove_stale_engines",
    "store",
    "timing_cache",
]

CACHE_VARIABLE = "VPTKIT_CACHE"
FORMAT = "vptkit.engine/1"
_LETTERS = 12  # of the key's digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """What an engine must fit.

    Attributes:
        library: "tensorrt" or "tensorrt_rtx".
        version: of the library.
        capability: compute capability, "8.7".
        gpu: the GPU's name; None while building ahead of time for any GPU of the capability.
        sms: its multiprocessors, or None as well: every module of the Orin family is called
            "Orin", and kernels are chosen for the number.
        graph: digest of the graph (`graph_digest`).
    """

    library: str
    version: str
    capability: str
    gpu: str | None
    sms: int | None
    graph: str

    def __str__(self) -> str:
        gpu = "any GPU" if self.gpu is None else self.gpu
        sms = "" if self.sms is None else f", {self.sms} SMs"
        library = LIBRARIES[self.library].title if self.library in LIBRARIES else self.library
        return f"{library} {self.version} on {gpu} ({self.capability}{sms})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What makes two engines the same.

    Attributes:
        here: where it runs, and the graph.
        options: shapes and builder options.
    """

    here: Here
    options: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The record's first part."""
        here = {name: getattr(self.here, name) for name in Here.__slots__}
        return {"format": FORMAT, **here, "options": dict(self.options)}

    @property
    def digest(self) -> str:
        """Name of the files."""
        return hashlib.sha256(canonical_json(self.to_json()).encode()).hexdigest()[:_LETTERS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A built engine.

    Attributes:
        path: the plan.
        record: see the module.
        fresh: it was built just now.
    """

    path: Path
    record: dict[str, Any] = field(repr=False)
    fresh: bool = False

    @property
    def whole(self) -> bool:
        """The plan is the one that the record was written for."""
        return self.path.is_file() and sha256_of_file(self.path) == self.record["sha256"]

    def mismatch(self, here: Here) -> str | None:
        """Why it does not fit, or None."""
        fields: dict[str, Any] = {name: self.record.get(name) for name in Here.__slots__}
        built = Here(**fields)
        ahead = built.gpu is None and built.sms is None
        place = replace(here, gpu=None, sms=None) if ahead else here
        if replace(built, graph=here.graph) != place:
            return f"built by {built}; here is {here}"
        return None if built.graph == here.graph else "built of another graph"


def graph_digest(bundle: Bundle) -> str:
    """Digest of the graph: the manifest's, of model.onnx and its external data."""
    files = bundle.manifest["files"]
    parts = [files[name] for name in sorted(files) if name.startswith(MODEL)]
    if len(parts) == 1:
        return str(parts[0])
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def engine_folder(bundle: Bundle, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the engines of a bundle lie; it need not exist."""
    cache = environ.get(CACHE_VARIABLE)
    if cache:
        return Path(cache).expanduser() / graph_digest(bundle)[:16]
    return bundle.path / ENGINES


def list_engines(bundle: Bundle) -> list[Engine]:
    """All engines of a bundle, the one last built or asked for first.

    Records that cannot be read are left out.
    """
    found = []
    for path in engine_folder(bundle).glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            record = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(record, dict) and record.get("format") == FORMAT:
                age = path.stat().st_mtime_ns, str(record.get("built_at")), path.name
                found.append((age, Engine(path=path.with_suffix(".engine"), record=record)))
    return [engine for _, engine in sorted(found, key=lambda pair: pair[0], reverse=True)]


def ask_for(engine: Engine) -> None:
    """Have sessions take this engine of those that fit."""
    engine.path.with_suffix(".json").touch()


def find_engine(bundle: Bundle, *, library: str, version: str, gpu: Gpu) -> Engine:
    """The engine of a bundle that fits this library and this GPU, the last built or asked for.

    Raises:
        MissingError: there is none; those that do not fit are named.
    """
    here = Here(
        library=library,
        version=version,
        capability=gpu.cc,
        gpu=gpu.name,
        sms=gpu.sms,
        graph=graph_digest(bundle),
    )
    refused = []
    for engine in list_engines(bundle):
        reason = engine.mismatch(here)
        if reason is None and engine.whole:
            return engine
        reason = reason or "damaged, its plan is not the one that was built"
        refused.append(f"{engine.path.name}: {reason}")
    there = f" Not used: {'; '.join(refused)}." if refused else ""
    raise MissingError(
        f"{bundle.path}: no engine for {here}.{there} "
        f"Build it here: {build_command(bundle, library)}"
    )


def build_command(bundle: Bundle, library: str) -> str:
    """What to type to have an engine."""
    backend = "" if library == "tensorrt" else f" --backend {LIBRARIES[library].backend}"
    return f"vptkit build {bundle.path}{backend}"


def store(folder: Path, key: Key, write: Callable[[Path], Mapping[str, Any]]) -> Engine:
    """Put an engine into the cache.

    Args:
        folder: `engine_folder`; must exist.
        key: of the engine.
        write: writes the plan to the path that it is given, and returns further facts for the
            record; what it raises leaves no trace.

    Raises:
        OutputError: the disk is full or not writable.
    """
    path = folder / f"{key.digest}.engine"
    with atomic_file(path) as part:
        record = write(part)
        facts = {"sha256": sha256_of_file(part), "bytes": part.stat().st_size}
        # from here to the new record there is no engine: better none than one half replaced
        path.with_suffix(".json").unlink(missing_ok=True)
    whole = {**key.to_json(), **facts, **record}
    with atomic_file(path.with_suffix(".json")) as part:
        text = json.dumps(whole, sort_keys=True, indent=1, allow_nan=False)
        part.write_text(text + "\n", encoding="ascii")
    return Engine(path=path, record=whole, fresh=True)


def timing_cache(folder: Path, here: Here) -> Path:
    """The file of kernel times for a library and a GPU."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", here.gpu or "any")
    sms = "" if here.sms is None else f"-{here.sms}"
    return folder / f"{here.library}-{here.version}-{here.capability}-{name}{sms}.timing"


def remove_stale_engines(bundle: Bundle, here: Here) -> list[Path]:
    """Remove what this library cannot use any more: engines, their records, kernel times.

    Those of the other library stay, and engines that were built ahead of time for GPUs of another
    compute capability. Plans without a readable record go: nobody can tell whose they are.

    Returns:
        The files.
    """
    folder = engine_folder(bundle)
    files = [p for p in folder.glob("*") if p.suffix in (".engine", ".json")]
    kept = {engine.path.stem for engine in list_engines(bundle) if not _useless(engine, here)}
    gone = [path for path in files if path.stem not in kept]
    times = timing_cache(folder, here)
    gone += [path for path in folder.glob(f"{here.library}-*.timing") if path != times]
    for path in gone:
        path.unlink(missing_ok=True)
    return sorted(gone)


def _useless(engine: Engine, here: Here) -> bool:
    """Whether it is this library's, and fits neither here nor another place that it was built for."""
    record = engine.record
    if record.get("library") != here.library:
        return False
    if record.get("graph") != here.graph or not engine.whole:
        return True
    if record.get("gpu") is None:  # ahead of time
        elsewhere = record.get("capability") != here.capability
    else:
        elsewhere = here.gpu is None  # it may be this machine's, and the question is of another
    return not elsewhere and engine.mismatch(here) is not None


@contextlib.contextmanager
def exclusive(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Only one build in a folder at a time: they would fight for a file, and for the GPU.

    Args:
        folder: is made if need be.
        waiting: called once if another build has to end first.

    Raises:
        OutputError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written: {error.strerror}. Set {CACHE_VARIABLE} to a folder that "
            "can hold the engines."
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        for part in folder.glob(".*.part"):  # of a build that was killed
            part.unlink(missing_ok=True)
        remove_dead_parts(folder)
        yield
    finally:
        os.close(handle)
