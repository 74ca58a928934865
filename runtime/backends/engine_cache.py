"""Built engines on disk: what each was built of and for, and which of them fits here.

Below `BUNDLE/engines/`, or `$VPTKIT_CACHE/<graph digest>/` if that is set, lie

DIGEST.engine       TensorRT's plan
DIGEST.json         its record: the key (library, version, GPU, graph, options), readable, what
                    became of it (digest, layers, seconds), and the seal of all that; written last,
                    so it is the commit
LIBRARY-….timing    kernel times, sealed, kept for the next build

DIGEST is of the key. An engine is loaded only where its whole key fits; one that does not is named
with the reason, never tried. Loading a plan is running machine code, so one is loaded only if this
user (or root) owns it, nobody else may write it, and this user built it on this machine: the seal
of its record tells (`engine_seal`). `--trust-engines` loads others too, which is to trust a program.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_file, sha256_of_file, sha256_of_stream
from vptkit.errors import BundleError, MissingError, OutputError
from vptkit.formats.bundle import ENGINES
from vptkit.part_files import remove_dead_parts
from vptkit.private_files import (
    locked,
    not_private,
    private_folder,
    require_unshared_parents,
    user_folder,
)
from vptkit.regular_files import open_inside, read_bounded
from vptkit.strict_json import canonical_json, parse_json

from .engine_seal import is_sealed, make_key, seal
from .tensorrt_library import LIBRARIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import BinaryIO

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
    "library_cache",
    "list_engines",
    "open_engine",
    "remove_stale_engines",
    "store",
    "timing_cache",
]

CACHE_VARIABLE = "VPTKIT_CACHE"
FORMAT = "vptkit.engine/1"
_LETTERS = 12  # of the key's digest
_MOST_RECORD = 64 << 20  # bytes; a record lists every layer of an engine
_TYPES: dict[str, tuple[type, ...]] = {
    "library": (str,),
    "version": (str,),
    "capability": (str,),
    "gpu": (str, type(None)),
    "sms": (int, type(None)),
    "graph": (str,),
    "options": (dict,),
    "sha256": (str,),
    "bytes": (int,),
}
_OURS = re.compile(rf"[0-9a-f]{{{_LETTERS}}}\.(engine|json)")


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
        distrust: why it may be somebody else's work, or None.
    """

    path: Path
    record: dict[str, Any] = field(repr=False)
    fresh: bool = False
    distrust: str | None = None

    @property
    def whole(self) -> bool:
        """The plan is the one that the record was written for."""
        try:
            self.open_plan(trust=True).close()
        except MissingError:
            return False
        return True

    def open_plan(self, *, trust: bool) -> BinaryIO:
        """The plan, for reading from its beginning; what was checked is what is open.

        Args:
            trust: others may own or have written it.

        Raises:
            MissingError: it is damaged, no file, or may be somebody else's work.
        """
        stream = open_inside(*_inside(self.path), MissingError)
        reason = None if trust else self.distrust or not_private(os.fstat(stream.fileno()))
        if reason is None and sha256_of_stream(stream) != self.record["sha256"]:
            reason = "damaged, its plan is not the one that was built"
        if reason is not None:
            stream.close()
            raise MissingError(f"{self.path}: {reason}")
        return stream

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
    """Digest of the graph: of model.onnx and its external data, and true of what is there.

    Raises:
        BundleError: it was not compared with the manifest yet, and differs.
    """
    for name in bundle.graph_files:
        if name not in bundle.stamps:
            with bundle.opened(name):
                pass
    parts = list(bundle.graph_files.values())
    if len(parts) == 1:
        return parts[0]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def engine_folder(bundle: Bundle, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the engines of a bundle lie; it need not exist."""
    cache = environ.get(CACHE_VARIABLE)
    if cache:
        return Path(cache).expanduser() / graph_digest(bundle)[:16]
    return bundle.path / ENGINES


def library_cache(
    bundle: Bundle, library: str, environ: Mapping[str, str] = os.environ
) -> Path | None:
    """A folder where a library keeps what it compiled of a bundle; None if there is no safe place.

    Such libraries load what lies there without a question, so nothing of a bundle does: the folder is
    this user's own, below the cache that the user names or the usual one. Nor do they notice that
    weights changed, so it is named by the graph's digest.

    Args:
        bundle: whose graph.
        library: the folder's name begins so.
        environ: where the cache is named.
    """
    cache = environ.get(CACHE_VARIABLE)
    usual = user_folder("XDG_CACHE_HOME", ".cache") / "vptkit" / "engines"
    place = Path(cache).expanduser() if cache else usual
    folder = place.absolute() / f"{library}-{graph_digest(bundle)}"
    try:
        private_folder(folder, OutputError, remedy="")
        require_unshared_parents(folder, OutputError)
    except OutputError:
        return None
    return folder


def list_engines(bundle: Bundle) -> list[Engine]:
    """All engines of a bundle, the one last built or asked for first.

    Records that cannot be read are left out.

    Raises:
        MissingError: the folder is a link, or this user may not read it.
    """
    folder = engine_folder(bundle)
    found = []
    for name in _names(folder):
        path = folder / name
        if path.suffix == ".json":
            with contextlib.suppress(MissingError):
                age, engine = _read_record(path)
                found.append(((age, str(engine.record.get("built_at")), name), engine))
    return [engine for _, engine in sorted(found, key=lambda pair: pair[0], reverse=True)]


def ask_for(engine: Engine) -> None:
    """Have sessions take this engine of those that fit."""
    os.utime(engine.path.with_suffix(".json"), follow_symlinks=False)


def find_engine(
    bundle: Bundle, *, library: str, version: str, gpu: Gpu, trust: bool = False
) -> Engine:
    """The engine of a bundle that fits this library and this GPU, the last built or asked for.

    Args:
        bundle: whose.
        library, version, gpu: what it must fit.
        trust: engines that this user did not build here count too.

    Raises:
        MissingError: there is none; those that are not used are named.
    """
    engine, plan = open_engine(bundle, library=library, version=version, gpu=gpu, trust=trust)
    plan.close()
    return engine


def open_engine(
    bundle: Bundle, *, library: str, version: str, gpu: Gpu, trust: bool = False
) -> tuple[Engine, BinaryIO]:
    """As `find_engine`, with its plan, opened and checked."""
    here = Here(
        library=library,
        version=version,
        capability=gpu.cc,
        gpu=gpu.name,
        sms=gpu.sms,
        graph=graph_digest(bundle),
    )
    refused, foreign = [], False
    for engine in list_engines(bundle):
        reason = engine.mismatch(here)
        if reason is None:
            try:
                return engine, engine.open_plan(trust=trust)
            except MissingError as error:
                reason = str(error).removeprefix(f"{engine.path}: ")
                foreign = foreign or engine.distrust is not None
        refused.append(f"{engine.path.name}: {reason}")
    there = f" Not used: {'; '.join(refused)}." if refused else ""
    trusting = " Or load what is there, if you trust whoever built it: --trust-engines"
    raise MissingError(
        f"{bundle.path}: no engine for {here}.{there} Build it here: "
        f"{build_command(bundle, library)}{'.' + trusting if foreign and not trust else ''}"
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
    make_key()
    path = folder / f"{key.digest}.engine"
    with atomic_file(path, mode=0o600) as part:
        record = write(part)
        facts = {"sha256": sha256_of_file(part), "bytes": part.stat().st_size}
        # from here to the new record there is no engine: better none than one half replaced
        path.with_suffix(".json").unlink(missing_ok=True)
    # as it will be read back, so that its seal fits
    whole = json.loads(canonical_json({**key.to_json(), **facts, **record}))
    whole = {**whole, "seal": seal(whole)}
    with atomic_file(path.with_suffix(".json"), mode=0o600) as part:
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
    compute capability. Plans without a readable record go: nobody can tell whose they are. A file
    whose name this cache does not write stays, and a bundle's folder that is a link is not followed.

    Returns:
        The files.

    Raises:
        BundleError: the bundle's engines/ is a link.
    """
    folder = engine_folder(bundle)
    if folder == bundle.path / ENGINES and folder.is_symlink():
        raise BundleError(f"{folder}: a link, which is not followed here. Remove it.")
    files = [p for p in folder.glob("*") if _OURS.fullmatch(p.name)]
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
        folder: is made if need be, for this user only; the mode of an older one is mended.
        waiting: called once if another build has to end first.

    Raises:
        OutputError: the folder cannot be made or written, is a link, or belongs to somebody else.
    """
    remedy = f"Set {CACHE_VARIABLE} to a folder of your own that can hold the engines."
    private_folder(folder, OutputError, remedy=remedy)
    make_key()
    with locked(folder / ".lock", OutputError, waiting=waiting, remedy=remedy):
        for part in folder.glob(".*.part"):  # of a build that was killed
            part.unlink(missing_ok=True)
        remove_dead_parts(folder)
        yield


def _names(folder: Path) -> list[str]:
    """What lies in the folder of engines; it is no link."""
    try:
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode):
            return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise MissingError(
            f"{folder}: cannot be read: {error.strerror}. Set {CACHE_VARIABLE} to a folder of your "
            "own, and build the engine again."
        ) from error
    raise MissingError(
        f"{folder}: no folder of its own (a link is not followed). Remove it, or set "
        f"{CACHE_VARIABLE} to a folder of your own."
    )


def _inside(path: Path) -> tuple[Path, str]:
    """A file of the folder of engines, for `open_inside`: that folder may be no link."""
    folder = path.parent
    return folder.parent, f"{folder.name}/{path.name}"


def _read_record(path: Path) -> tuple[int, Engine]:
    """The age of a record, and what it says.

    Raises:
        MissingError: it is none.
    """
    with open_inside(*_inside(path), MissingError) as stream:
        found = os.fstat(stream.fileno())
        record = parse_json(
            read_bounded(stream, path, MissingError, limit=_MOST_RECORD), path, MissingError
        )
    wrong = [name for name, types in _TYPES.items() if not isinstance(record.get(name), types)]
    if record.get("format") != FORMAT or wrong:
        raise MissingError(f"{path}: not the record of an engine")
    reason = not_private(path.parent.lstat()) or not_private(found)
    unsealed = {name: value for name, value in record.items() if name != "seal"}
    if reason is None and not is_sealed(unsealed, record.get("seal")):
        reason = "not built by this user on this machine"
    engine = Engine(path=path.with_suffix(".engine"), record=record, distrust=reason)
    return found.st_mtime_ns, engine
