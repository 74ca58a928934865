"""A real sshd on loopback, as the user who runs the tests, with a home folder of its own."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.children import PIPE, Child, descendants, run_child

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE_MS = 30_000
_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM no
PidFile none
MaxStartups 50
ForceCommand {folder}/login
"""
# What a login shell does for us: its start-up file, then the command.
_LOGIN = """\
#!/bin/sh
export HOME={home}
unset XDG_CACHE_HOME PYTHONPATH VPTKIT_CACHE
cd "$HOME"
if [ -f "$HOME/.profile" ]; then . "$HOME/.profile"; fi
exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"
"""


@dataclass(frozen=True)
class Sshd:
    """A running server.

    Attributes:
        home: the home folder of whoever logs in.
        host: where it listens, as `profile_on` wants it.
        options: what ssh needs to get in.
    """

    home: Path
    host: str
    options: tuple[str, ...]
    pid: int = field(repr=False)

    @property
    def cache(self) -> Path:
        return self.home / ".cache/vptkit/remote"

    def processes(self) -> dict[int, str]:
        """Processes that somebody left below the home folder: number → command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                folder = (entry / "cwd").readlink()
                if entry.name.isdigit() and folder.is_relative_to(self.home):
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(entry.name)] = line.decode(errors="replace").strip()
        return found

    def cut(self) -> None:
        """Cut every connection, as a broken network does."""
        for pid in descendants(self.pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/exe").resolve().name.startswith("sshd"):
                    os.kill(pid, signal.SIGKILL)

    def wait_until_idle(self) -> None:
        """Return when no process is left below the home folder."""
        for pid in self.processes():
            wait_for_end(pid)
        assert self.processes() == {}


def wait_for_end(pid: int) -> None:
    """Return when a process has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready = select.poll()
        ready.register(handle, select.POLLIN)
        assert ready.poll(_PATIENCE_MS), f"process {pid} still runs"
    finally:
        os.close(handle)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """The server; its home folder lives as long as the module's tests."""
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if sshd is None or shutil.which("ssh") is None or not hasattr(os, "pidfd_open"):
        pytest.skip("no sshd on this machine: sudo apt install openssh-server")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # root's sshd insists on it
    folder = tmp_path_factory.mktemp("sshd")
    home = folder / "home"
    home.mkdir()
    for key in ("host_key", "user_key", "other_key"):
        run_child(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "config").write_text(_CONFIG.format(port=port, folder=folder))
    (folder / "login").write_text(_LOGIN.format(home=home))
    (folder / "login").chmod(0o755)
    kind, key, *_ = (folder / "host_key.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    options = (
        f"IdentityFile={folder}/user_key",
        f"UserKnownHostsFile={folder}/known_hosts",
        "GlobalKnownHostsFile=/dev/null",
        "StrictHostKeyChecking=yes",
        "IdentitiesOnly=yes",
    )
    command = [sshd, "-D", "-e", "-f", folder / "config"]
    process = Child(command, stderr=PIPE, limit=1800)  # for all tests of a module
    try:
        for line in process.stderr:
            if "Server listening" in line:
                break
        else:
            pytest.skip(f"sshd does not start here: {line}")
        running = Sshd(home=home, host=f"127.0.0.1:{port}", options=options, pid=process.pid)
        yield running
        for pid in running.processes():  # left by a test that failed
            os.kill(pid, signal.SIGKILL)
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has numpy and ONNX Runtime and nothing else, as a board may have it."""
    return _python(tmp_path_factory.mktemp("bare"), ("numpy", "onnxruntime"))


@pytest.fixture(scope="session")
def bank_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with safetensors, which a bank needs."""
    return _python(tmp_path_factory.mktemp("bank"), ("numpy", "onnxruntime", "safetensors"))


@pytest.fixture(scope="session")
def empty_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python without any package."""
    return _python(tmp_path_factory.mktemp("empty"), ())


# What ONNX Runtime imports when it is imported comes along.
_COMPANIONS = ("numpy.libs", "flatbuffers", "google", "packaging", "coloredlogs", "sympy")


def _python(folder: Path, packages: tuple[str, ...]) -> Path:
    run_child([sys.executable, "-m", "venv", "--without-pip", folder / "venv"])
    (site,) = (folder / "venv/lib").glob("python3*/site-packages")
    for package in packages:
        found = Path(__import__(package).__file__).parent
        site.joinpath(package).symlink_to(found)
        for name in _COMPANIONS if package == "onnxruntime" else (f"{package}.libs",):
            if (found.parent / name).exists() and not (site / name).exists():
                (site / name).symlink_to(found.parent / name)
    return folder / "venv/bin/python"
