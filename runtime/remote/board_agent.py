"""The board's side of `remote_profile`: takes files, starts the runner, stops with the desk.

Its text is sent over ssh and run by the board's own Python before anything of ours is there, so it
imports the standard library only. Orders come as JSON lines on standard input, answers go as JSON
lines to standard output:

    (start)                                   → MARKER, then {"python", "packages", "free"}
    {"take": {path: [sha256, bytes]}}         → {"missing": [sha256]}; then the bytes of those, one
                                                file after the other, come in; → {"taken": count}
    {"run": request}                          → the runner's own lines, then {"exit": status}
    {"clean": true}                           → {"freed": bytes, "in_use": count}
    (what fails)                              → {"error": {"code", "message"}}, vptkit's exit code

Below ROOT lie `files/SHA256` (what was ever sent), `engines/` (what was built from it) and
`runs/X/` (hard links to files, under the names that one run wants; locked while it lives). A file
gets its name when all of it came and its digest is right, and is read again before each use. The
end of standard input means that the desk went away.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["GRACE", "MARKER", "PACKAGES", "ROOT", "Store", "main"]

MARKER = "vptkit-agent/1"
ROOT = "~/.cache/vptkit/remote"
PACKAGES = (
    "numpy",
    "onnxruntime",
    "safetensors",
    "tensorrt",
    "tensorrt_rtx",
    "tensorrt_rtx_bindings",
)
# Seconds that an interrupted runner has to put power mode and clocks back. What then kills it does
# not reach its watchdog (`vptkit.devices.power.watchdog`), which does it in its place.
GRACE = 60.0
_FOLDERS = ("files", "engines", "runs")
_BLOCK = 1 << 20
_MOST_ORDER = 64 << 20  # bytes of an order
_MOST_FILE = 1 << 40  # bytes of a file
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Store:
    """Files by their SHA-256, and the folder of this run.

    Attributes:
        root: of everything.
        run: a folder of our own, which nobody else removes while this process lives.
    """

    def __init__(self, root: Path) -> None:
        """Make the folders; remove those of runs that are dead.

        Raises:
            ValueError: the folder is another user's.
        """
        self.root, self._files = root, root / "files"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)  # models, and code that will run
        if root.stat().st_uid != os.geteuid():
            raise ValueError("the folder belongs to another user")
        root.chmod(0o700)
        with _locked(root):
            for name in _FOLDERS:
                (root / name).mkdir(exist_ok=True)
            self._in_use()
            self.run = Path(tempfile.mkdtemp(dir=root / "runs"))
            self._lock = os.open(self.run, _FOLDER)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove the folder of this run."""
        shutil.rmtree(self.run, ignore_errors=True)
        os.close(self._lock)

    def missing(self, wanted: dict[str, int]) -> list[str]:
        """Digests whose files are not here, in the order of `wanted`; a damaged one is removed."""
        absent = []
        for digest in wanted:
            if not _is_whole(self._file(digest), digest):
                self._file(digest).unlink(missing_ok=True)
                absent.append(digest)
        return absent

    def take(self, digest: str, size: int, stream: BinaryIO) -> None:
        """Write the next bytes of a stream as a file, if they are what they shall be.

        Raises:
            EOFError: the stream ends too early.
            ValueError: the digest differs.
        """
        target = self._file(digest)
        part, found, left = self.run / ".part", hashlib.sha256(), size
        with part.open("wb") as file:
            while left:
                block = stream.read(min(left, _BLOCK))
                if not block:
                    raise EOFError(f"the stream ended {left} bytes too early")
                found.update(block)
                file.write(block)
                left -= len(block)
        if found.hexdigest() != digest:
            raise ValueError("a file changed while it was copied, or was damaged. Try again")
        part.replace(target)

    def lay_out(self, paths: dict[str, str]) -> None:
        """Give files their names in the folder of this run: path → digest."""
        for path, digest in paths.items():
            parts = PurePosixPath(path).parts
            if not parts or parts[0] == "/" or ".." in parts or not path.isprintable():
                raise ValueError(f"{path!r} leads out of its folder")
            place = self.run / path
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(self._file(digest), place)
            except FileExistsError:  # a copy would overwrite the file of another digest
                raise ValueError(f"{path!r} is there twice") from None
            except OSError:  # a file system without hard links
                shutil.copyfile(self._file(digest), place)

    def clean(self) -> dict[str, int]:
        """Remove files, engines and runs, unless another run needs them."""
        with _locked(self.root):
            in_use = self._in_use() - 1
            if in_use:
                return {"freed": 0, "in_use": in_use}
            files = [p for p in self.root.rglob("*") if p.is_file()]
            freed = sum(p.stat().st_size for p in files)
            for name in _FOLDERS:
                shutil.rmtree(self.root / name)
        return {"freed": freed, "in_use": 0}

    def _file(self, digest: str) -> Path:
        """Where a file lies, or will.

        Raises:
            ValueError: not a digest, but perhaps a way out of the folder.
        """
        if _DIGEST.fullmatch(digest) is None:
            raise ValueError(f"{digest[:80]!r} is no SHA-256")
        return self._files / digest

    def _in_use(self) -> int:
        """How many runs live; the folders of the others are removed."""
        count = 0
        for run in (self.root / "runs").iterdir():
            try:
                handle = os.open(run, _FOLDER)
            except (FileNotFoundError, NotADirectoryError):  # it ended just now; or is not ours
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                count += 1
            else:
                shutil.rmtree(run, ignore_errors=True)
            finally:
                os.close(handle)
        return count


def main(root: Path | None = None) -> None:
    """Follow the orders on standard input until it ends."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the end of standard input comes anyway
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    root = root or Path(ROOT).expanduser()
    sys.stdout.write(f"\n{MARKER}\n")  # whatever the shell's start-up files wrote ends here
    sys.stdout.flush()
    try:
        _serve(root)
    except BrokenPipeError:
        pass  # the desk is gone
    except (EOFError, OSError, RecursionError, ValueError) as error:
        with contextlib.suppress(BrokenPipeError):
            _say({"error": {"code": 2, "message": f"{root}: {error}"}})
        sys.exit(1)


def _serve(root: Path) -> None:
    store = Store(root)
    _say(
        {
            "python": sys.version.split()[0],
            "packages": [name for name in PACKAGES if importlib.util.find_spec(name)],
            "free": shutil.disk_usage(root).free,
        }
    )
    try:
        while line := sys.stdin.buffer.readline(_MOST_ORDER):
            order, argument = _order(line)
            if order == "take":
                _take(store, argument)
            elif order == "run":
                _say({"exit": _run(store, argument)})
                return
            else:
                _say(store.clean())
    finally:
        store.close()


def _order(line: bytes) -> tuple[str, Any]:
    """The name of an order and its argument.

    Raises:
        ValueError: it is none.
    """
    order = json.loads(line)
    if not isinstance(order, dict) or len(order) != 1 or not set(order) <= {"take", "run", "clean"}:
        raise ValueError("not an order: expected take, run or clean")
    ((name, argument),) = order.items()
    return name, argument


def _sizes(files: Any) -> dict[str, int]:
    """Digest → bytes of the files of an order, {path: [digest, bytes]}.

    Raises:
        ValueError: it is not of that shape, or gives one digest two sizes.
    """
    sizes: dict[str, int] = {}
    for pair in files.values() if isinstance(files, dict) else [None]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError("not a list of files: expected path: [digest, bytes]")
        digest, size = pair
        if not isinstance(digest, str) or type(size) is not int or not 0 <= size <= _MOST_FILE:
            raise ValueError("not a list of files: expected path: [digest, bytes]")
        if sizes.setdefault(digest, size) != size:
            raise ValueError(f"{digest[:80]!r} has two sizes")
    return sizes


def _take(store: Store, files: dict[str, tuple[str, int]]) -> None:
    sizes = _sizes(files)
    missing = store.missing(sizes)
    wanted, free = sum(sizes[digest] for digest in missing), shutil.disk_usage(store.root).free
    if wanted > free:
        raise ValueError(f"{wanted} bytes were announced, and {free} are free")
    _say({"missing": missing})
    for digest in missing:
        store.take(digest, sizes[digest], sys.stdin.buffer)
    store.lay_out({path: digest for path, (digest, _) in files.items()})
    _say({"taken": len(missing)})


def _run(store: Store, request: dict[str, Any]) -> int:
    """The runner's exit status, negative if a signal ended it."""
    path = os.environ.get("PYTHONPATH")
    os.environ.update(
        PYTHONPATH=f"{store.run}{os.pathsep}{path}" if path else str(store.run),
        PATH=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin",  # nvpmodel lies there
        VPTKIT_CACHE=str(store.root / "engines"),
    )
    sys.path.insert(0, str(store.run))
    # Ours is here only now: it was laid out in this run's folder.
    from vptkit.python_child import python_command, start_python

    runner = start_python(
        python_command("vptkit.runtime.remote.profile_runner"),
        stdin=subprocess.PIPE,
        cwd=store.run,
        start_new_session=True,
    )
    try:
        threading.Thread(target=_stop_with_the_desk, args=(runner,), daemon=True).start()
        runner.communicate(json.dumps(request).encode())
        return runner.returncode
    finally:
        _stop(runner)


def _stop_with_the_desk(runner: subprocess.Popen[bytes]) -> None:
    # Not through sys.stdin: Python's end would wait for its lock.
    while os.read(sys.stdin.fileno(), _BLOCK):
        pass
    _stop(runner)


def _stop(runner: subprocess.Popen[bytes]) -> None:
    """Interrupt the runner, as Ctrl-C would; then kill what is left of it and of its children."""
    if runner.poll() is None:
        runner.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            runner.wait(GRACE)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing left, or root's
        os.killpg(runner.pid, signal.SIGKILL)


def _is_whole(file: Path, digest: str) -> bool:
    """Whether a regular file of that name has that digest."""
    try:
        handle = os.open(file, _FILE)
    except OSError:  # not there, or a link
        return False
    with os.fdopen(handle, "rb") as stream:
        return stat.S_ISREG(os.fstat(handle).st_mode) and _sha256(stream) == digest


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)  # the user's own, perhaps a link to a larger disk
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sha256(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := stream.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
