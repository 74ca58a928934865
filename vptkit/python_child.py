"""The one way to start a Python child of ours: our own code, nothing from the current folder.

`python -m` and `python -c` search the current folder first, so a `numpy.py` beside a bundle would
run. A child that starts here has the interpreter by its absolute path, no current folder on any
search path, and this very vptkit, loaded from where it lies. What a *privileged* one is told by its
environment ends at a few names; the folders of PYTHONPATH and of the user's packages are not its.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.errors import MissingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["PIPE", "child_environment", "python_command", "run_python", "start_python"]

PIPE = subprocess.PIPE
# Runs before anything is imported that is not built in. Python 3.10 knows no -P: there the current
# folder stands on the path as "". The package is loaded by its place, for it may be installed in a
# way that needs the current folder, and another vptkit may stand before it on the path.
_BOOT = """\
import sys
sys.path[:] = [place for place in sys.path if place]
import importlib.util
import os
file = sys.argv[1]
if getattr(sys.modules.get("vptkit"), "__file__", None) != file:
    spec = importlib.util.spec_from_file_location(
        "vptkit", file, submodule_search_locations=[os.path.dirname(file)]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules["vptkit"] = package
    spec.loader.exec_module(package)
del sys.argv[0], sys.argv[0]
import runpy
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
# Lists of folders, and single ones. An empty entry of a list is the current folder.
_LISTS = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")
_FOLDERS = ("PYTHONHOME", "PYTHONUSERBASE", "PYTHONPYCACHEPREFIX", "PYTHONSTARTUP")
_OF_THE_PRIVILEGED = ("PATH", "HOME", "LANG", "LC_ALL")


def python_command(module: str, *arguments: str, privileged: bool = False) -> tuple[str, ...]:
    """The words that run a module of ours as a program.

    Args:
        module: dotted, below `vptkit`.
        arguments: its `sys.argv[1:]`.
        privileged: neither PYTHONPATH nor the user's own packages count.
    """
    safe = ("-P",) if sys.version_info >= (3, 11) else ()
    flags = ("-I",) if privileged else safe
    package = Path(__file__).resolve().with_name("__init__.py")
    return (sys.executable, *flags, "-c", _BOOT, str(package), module, *arguments)


def child_environment(
    environ: Mapping[str, str] = os.environ, *, privileged: bool = False
) -> dict[str, str]:
    """An environment in which no search path leads to the current folder.

    Args:
        environ: this process's.
        privileged: only what a tool of the system needs.
    """
    kept = dict(environ)
    for name in _LISTS:
        entries = [e for e in re.split("[:;]", kept.pop(name, "")) if e.startswith("/")]
        if entries:
            kept[name] = os.pathsep.join(entries)
    for name in _FOLDERS:
        if not kept.get(name, "/").startswith("/"):
            del kept[name]
    if privileged:
        return {name: kept[name] for name in _OF_THE_PRIVILEGED if name in kept}
    return kept


def start_python(
    command: Sequence[str], *, privileged: bool = False, **settings: Any
) -> subprocess.Popen[Any]:
    """Start a child; the caller ends it.

    Args:
        command: of `python_command`.
        privileged: as it was made.
        settings: of `subprocess.Popen`, the environment excepted.

    Raises:
        MissingError: this Python does not know where its interpreter lies.
    """
    _require_interpreter(command)
    environment = child_environment(privileged=privileged)
    return subprocess.Popen(list(command), env=environment, **settings)  # noqa: S603 -- ourselves


def run_python(
    command: Sequence[str], *, seconds: float, **settings: Any
) -> subprocess.CompletedProcess[Any]:
    """Run a child to its end, with its output and without input.

    Args:
        command: of `python_command`.
        seconds: it may take so long, then it is killed.
        settings: of `subprocess.run`.

    Raises:
        MissingError: this Python does not know where its interpreter lies.
        subprocess.TimeoutExpired: it took longer.
    """
    _require_interpreter(command)
    return subprocess.run(  # noqa: S603 -- ourselves
        list(command),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=child_environment(),
        timeout=seconds,
        check=False,
        **settings,
    )


def _require_interpreter(command: Sequence[str]) -> None:
    if not command[0]:  # sys.executable, where Python is built into another program
        raise MissingError(
            "this Python does not say where its interpreter lies, so that no child can be started. "
            "Start vptkit as a program of its own."
        )
