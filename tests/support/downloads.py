"""What the tests fetch from package registries, kept between runs.

Everything lies below one cache folder, `$VPTKIT_TEST_CACHE` or `vptkit-tests` in the user's cache;
deleting it costs the next run a minute. What cannot be had raises `Unavailable`, and the tests that
need it are skipped with its words.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.children import run_child

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PIP", "Unavailable", "cache_folder", "call", "staged"]

PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--timeout=30")


class Unavailable(Exception):  # noqa: N818 - not an error of the code under test
    """A program or package that a test needs is not to be had here; says which and why."""


def cache_folder() -> Path:
    """Where downloads are kept."""
    given = os.environ.get("VPTKIT_TEST_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vptkit-tests"


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes the name `path` only if filling it went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield stage
        stage.chmod(0o755)
        with contextlib.suppress(OSError):  # another run was faster: its folder is as good
            stage.rename(path)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def call(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """Run a program and return its standard output.

    Raises:
        Unavailable: the program is not installed, or it failed; with its last words.
    """
    words = [str(word) for word in command]
    try:
        done = run_child(words, cwd=cwd, env={**os.environ, **environment}, limit=600, check=False)
    except FileNotFoundError as error:
        raise Unavailable(f"{words[0]} is not installed") from error
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        program = Path(words[0]).name
        raise Unavailable(f"{last[0][:300]} ({program} ended with {done.returncode})")
    return done.stdout
