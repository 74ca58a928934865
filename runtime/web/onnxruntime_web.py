"""The files of onnxruntime-web, ONNX Runtime for browsers: found, or fetched by npm, and compared.

They are not part of vptkit: WebAssembly is tens of megabytes. npm fetches the package from the registry
that it is set up for; what comes is compared with the digests below, whoever it came from.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from vptkit.atomic_files import atomic_folder
from vptkit.errors import BundleError, MissingError, VptkitError
from vptkit.private_files import user_folder
from vptkit.progress import no_phases
from vptkit.regular_files import is_folder, read_regular
from vptkit.shown_text import printable, shown
from vptkit.strict_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vptkit.progress import Phases

__all__ = ["FILES", "PACKAGE", "VERSION", "Library", "find_library", "library_files", "web_name"]

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
# Of the archive, as `npm view onnxruntime-web@1.30.0 dist.integrity` tells it
_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# What a page needs, by its name in dist/, and the SHA-256: for WebAssembly (threads, SIMD), and the same
# with WebGPU
FILES: Mapping[str, str] = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
    "ort-wasm-simd-threaded.asyncify.mjs": "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}
_DIST = "dist"
_MOST = 64 << 20  # bytes of one file; the largest has 27 MB
_ARCHIVE_BYTES = 128 << 20
_SECONDS = 300.0  # for npm: 33 MB
_OTHERWISE = (
    f"Or run `npm pack {PACKAGE}@{VERSION}` where there is a network, unpack it here, and pass its "
    "folder: --onnxruntime-web package/"
)


class Library(NamedTuple):
    """Files that were compared with their digests.

    Attributes:
        version: of the package.
        files: name → content.
    """

    version: str
    files: dict[str, bytes]


def library_files(way: Literal["wasm", "webgpu"]) -> list[str]:
    """Those that one way to run a graph needs, below the folder of a page."""
    names = list(FILES)
    return [web_name(name) for name in (names[:3] if way == "wasm" else names[3:])]


def web_name(name: str) -> str:
    """A file's name below the folder of a page: .js, as many hosts call .mjs no JavaScript."""
    return (
        f"{PACKAGE}/{name.removesuffix('.mjs')}.js"
        if name.endswith(".mjs")
        else f"{PACKAGE}/{name}"
    )


def find_library(folder: Path | None = None, phase: Phases = no_phases) -> Library:
    """The files of the package: of a folder, of the cache, or fetched into the cache.

    Args:
        folder: an unpacked package, or node_modules/onnxruntime-web; the cache unless given.
        phase: is told of the fetching.

    Raises:
        VptkitError: the folder is no such package, or of another version.
        MissingError: there is no npm, it has no network, or it brought something else.
    """
    if folder is not None:
        return _of_folder(folder)
    kept = user_folder("XDG_CACHE_HOME", ".cache") / "vptkit" / f"{PACKAGE}-{VERSION}"
    if found := _kept(kept):
        return Library(VERSION, found)
    with phase(f"fetching {PACKAGE} {VERSION} with npm", None):
        files = _fetched()
    _keep(kept, files)
    return Library(VERSION, files)


def _of_folder(folder: Path) -> Library:
    if not is_folder(folder):
        raise VptkitError(f"--onnxruntime-web {shown(folder)}: no such folder. {_unpacked()}")
    if not is_folder(folder / _DIST):
        raise VptkitError(f"--onnxruntime-web {shown(folder)}: has no {_DIST}/. {_unpacked()}")
    about = folder / "package.json"
    found = parse_json(read_regular(about, VptkitError, limit=1 << 20), about, VptkitError)
    if (found.get("name"), found.get("version")) != (PACKAGE, VERSION):
        came = f"{found.get('name')} {found.get('version')}"
        raise VptkitError(
            f"{shown(about)}: is of {printable(came)[:80]}, expected {PACKAGE} {VERSION}. {_unpacked()}"
        )
    files = {name: _read(folder / _DIST / name) for name in FILES}
    for name, content in files.items():
        if not _is(name, content):
            raise VptkitError(
                f"{shown(folder / _DIST / name)}: is not that of {PACKAGE} {VERSION}: damaged, or "
                f"changed. {_unpacked()}"
            )
    return Library(VERSION, files)


def _unpacked() -> str:
    return f"Expected the package as `npm pack {PACKAGE}@{VERSION}` brings it, unpacked."


def _read(path: Path) -> bytes:
    return read_regular(path, VptkitError, limit=_MOST)


def _is(name: str, content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == FILES[name]


def _kept(folder: Path) -> dict[str, bytes] | None:
    """What an earlier call fetched; None where it is not there, or not as it was."""
    try:
        files = {name: _read(folder / name) for name in FILES}
    except VptkitError:
        return None
    return files if all(_is(name, content) for name, content in files.items()) else None


def _keep(folder: Path, files: Mapping[str, bytes]) -> None:
    """For the next call; a cache that cannot be written does no harm."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder, force=True) as part:
            for name, content in files.items():
                (part / name).write_bytes(content)
    except (OSError, VptkitError):
        return


def _fetched() -> dict[str, bytes]:
    npm = shutil.which("npm")
    what = f"a page needs the files of {PACKAGE} {VERSION}"
    if npm is None:
        raise MissingError(
            f"{what}, and there is no npm to fetch them. Install it (apt install npm). {_OTHERWISE}"
        )
    with tempfile.TemporaryDirectory(prefix="vptkit-") as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--fetch-retries=1"]
        try:
            # In a folder of its own: npm would read settings of whoever wrote the current one.
            done = subprocess.run(  # noqa: S603
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MissingError(f"{what}, and npm failed: {error}. {_OTHERWISE}") from error
        archives = sorted(Path(folder).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            raise MissingError(f"{what}, and npm failed: {_last_words(done.stderr)}. {_OTHERWISE}")
        return _of_archive(archives[0])


def _last_words(text: bytes) -> str:
    """Npm's reason, in one line: the first that says what went wrong."""
    lines = [line.strip() for line in text.decode("utf-8", "replace").splitlines()]
    errors = (
        [line for line in lines if line.lower().startswith("npm err")] or lines or ["no reason"]
    )
    chosen = next((line for line in errors if "code" not in line.split()[2:3]), errors[0])
    return printable(chosen)[:300].rstrip(".")


def _of_archive(path: Path) -> dict[str, bytes]:
    content = read_regular(path, MissingError, limit=_ARCHIVE_BYTES)
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode("ascii")
    del content
    if digest != _SHA512:
        raise MissingError(
            f"npm brought another {PACKAGE} {VERSION} than the published one (sha512-{digest}). Ask whoever "
            f"runs its registry. {_OTHERWISE}"
        )
    files = {}
    with tarfile.open(path) as archive:
        for name in FILES:
            member = archive.extractfile(f"package/{_DIST}/{name}")
            files[name] = b"" if member is None else member.read(_MOST)
    if odd := [name for name, found in files.items() if not _is(name, found)]:
        raise BundleError(f"{PACKAGE} {VERSION}: {odd[0]} differs from its digest")
    return files
