"""A Python for aarch64 with what a board has installed, run by QEMU on another processor.

No root, no container and no second system are touched: Debian's packages and the wheels for aarch64
are unpacked below the cache folder (about 300 MB), and `qemu-aarch64-static` runs their programs. It
tells whether something works and what it answers, never how fast it is.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.children import run_child
from tests.support.downloads import PIP, Unavailable, cache_folder, call, staged

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from subprocess import CompletedProcess

__all__ = ["Board", "board"]

CHECKOUT = Path(__file__).resolve().parents[2]
QEMU = "qemu-aarch64-static"
DEBIAN = ("libpython3-stdlib", "libgomp1", "libstdc++6", "python3-minimal", "zlib1g")
# The newest ONNX Runtime for JetPack 6's Python 3.10, and of the others those that QEMU 7.2 can run:
# ONNX Runtime from 1.28 on ends there with a segmentation fault.
PINNED = ("onnxruntime==1.23.2", "numpy<2.3")
# A program of its own, so that Python's `sys.executable` can be started again by its children.
PYTHON = f"""#!/bin/sh
bin=$(dirname "$0")
exec {QEMU} -0 "$0" -L "$(dirname "$(dirname "$bin")")" "$bin"/python3.* "$@"
"""
WHEELS = ("manylinux_2_17", "manylinux2014", "manylinux_2_27", "manylinux_2_28")


@dataclass(frozen=True, kw_only=True)
class Board:
    """Programs and packages for aarch64.

    Attributes:
        python: a program that runs the interpreter.
        site: the unpacked wheels.
    """

    python: Path
    site: Path

    def run(self, *arguments: object, limit: float = 600) -> CompletedProcess[str]:
        """Run Python on the board; vptkit is imported from this checkout."""
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{self.site}:{CHECKOUT}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "HOME": tempfile.gettempdir(),
        }
        command = [self.python, *arguments]
        place = tempfile.gettempdir()
        return run_child(command, limit=limit, check=False, env=environment, cwd=place)


@functools.cache
def board() -> Board:
    """The board, fetched if it is not in the cache.

    Raises:
        Unavailable: no QEMU, no apt, no pip, no packages for aarch64 among apt's sources (those of
            Debian have them), or no network.
    """
    if shutil.which(QEMU) is None:
        raise Unavailable(f"{QEMU} is not installed: apt-get install qemu-user-static")
    root = cache_folder() / f"aarch64-debian-{_digest(*DEBIAN, PYTHON)}"
    if not root.is_dir():
        with staged(root) as stage:
            _unpack_debian(stage)
    programs = root / "usr" / "bin"
    version = min(programs.glob("python3.*")).name.removeprefix("python")
    packages = _requirements()
    site = cache_folder() / f"aarch64-site-{_digest(version, *packages)}"
    if not site.is_dir():
        with staged(site) as stage:
            _unpack_wheels(packages, version, stage)
    return Board(python=programs / "board-python", site=site)


def _digest(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:8]


def _requirements() -> list[str]:
    """What `pip install .[cpu]` would ask for on the board."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["cpu"], *PINNED]
    return [text for text in wanted if "python_version" not in text]


def _unpack_debian(root: Path) -> None:
    """Fetch and unpack the packages of DEBIAN and all they depend on, from this machine's mirrors."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        (work / "lists" / "partial").mkdir(parents=True)
        (work / "cache" / "archives" / "partial").mkdir(parents=True)
        (work / "status").touch()
        options = [
            "-q",
            "-oAPT::Architecture=arm64",
            "-oAPT::Architectures=arm64",
            "-oAPT::Sandbox::User=",
            f"-oDir::State::Lists={work}/lists",
            f"-oDir::State::status={work}/status",
            f"-oDir::Cache={work}/cache",
            "-oDebug::NoLocking=1",
        ]
        call("apt-get", *options, "update")
        install = ("install", "-y", "--download-only", "--no-install-recommends")
        call("apt-get", *options, *install, *DEBIAN)
        for package in sorted((work / "cache" / "archives").glob("*.deb")):
            call("dpkg", "-x", package, root)
    program = root / "usr" / "bin" / "board-python"
    program.write_text(PYTHON)
    program.chmod(0o755)


def _unpack_wheels(packages: list[str], version: str, site: Path) -> None:
    platforms = [word for name in WHEELS for word in ("--platform", f"{name}_aarch64")]
    call(
        *(*PIP, "install", "--no-compile", "--target", site, "--only-binary=:all:"),
        *("--python-version", version, "--implementation", "cp", *platforms, *packages),
    )
