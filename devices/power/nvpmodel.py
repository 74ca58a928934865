"""Power modes of a Jetson, asked and set with `nvpmodel`; clocks pinned with `jetson_clocks`.

A number means another mode on another module, so modes are named, and their numbers are read from
the board's own /etc/nvpmodel.conf. Some modes (those that switch GPU or CPU parts off) need a
reboot: nvpmodel then asks on standard input, which is closed here, and gives up.

Unverified on a board: the output formats are those of public reports from Orin and Thor.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.devices.probes.jetson import PowerMode, power_modes
from vptkit.errors import MissingError, TargetError, VptkitError
from vptkit.python_child import child_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Run = Callable[[Sequence[str]], "Output"]

__all__ = [
    "Output",
    "RebootNeededError",
    "choose_modes",
    "current_mode",
    "has_jetson_clocks",
    "has_nvpmodel",
    "parse_query",
    "pin_clocks",
    "require_root",
    "restore_clocks",
    "run_command",
    "set_mode",
    "show_clocks",
    "store_clocks",
]

_SECONDS = 60.0  # nvpmodel -m takes a few
_REBOOT = re.compile(r"reboot required", re.IGNORECASE)


class RebootNeededError(TargetError):
    """A mode that the board enters only by a reboot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a command said: its exit status, standard output and error together."""

    code: int
    text: str

    @property
    def last(self) -> str:
        """The last line, for messages."""
        return (self.text.strip().splitlines() or ["no output"])[-1].strip()


def run_command(command: Sequence[str]) -> Output:
    """Run a command with standard input closed.

    In a session of its own: Ctrl-C at the terminal reaches us, and not a command that is just
    setting a board back to what it was.

    Raises:
        MissingError: there is no such command.
        TargetError: it did not end in time.
    """
    path = _find(command[0])
    if path is None:
        raise MissingError(f"{command[0]} is not there: it comes with Jetson Linux, on a Jetson")
    try:
        done = subprocess.run(  # noqa: S603 -- NVIDIA's tools, by fixed names
            [path, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**child_environment(privileged=True), "LC_ALL": "C"},
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise TargetError(f"{' '.join(command)} did not end in {_SECONDS:.0f} s") from error
    return Output(code=done.returncode, text=done.stdout)


def has_nvpmodel() -> bool:
    """Whether this machine has power modes to ask for."""
    return _find("nvpmodel") is not None


def has_jetson_clocks() -> bool:
    """Whether this machine has NVIDIA's tool that pins clocks."""
    return _find("jetson_clocks") is not None


def require_root(purpose: str) -> None:
    """Refuse what only root may do, before anything was changed.

    Raises:
        MissingError: this process is not root's.
    """
    if os.geteuid() != 0:
        # sudo forgets where the engines are.
        cache = os.environ.get("VPTKIT_CACHE")
        kept = f"VPTKIT_CACHE={shlex.quote(cache)} " if cache else ""
        raise MissingError(
            f"{purpose} needs root. Run the same command with sudo, "
            f'as in: sudo {kept}"$(command -v vptkit)" profile ... (with --on: as root@HOST)'
        )


def current_mode(run: Run = run_command) -> PowerMode:
    """The mode the board is in, by `nvpmodel -q`.

    Raises:
        MissingError: there is no nvpmodel.
        TargetError: its answer names no mode.
    """
    found = run(["nvpmodel", "-q"])
    mode = parse_query(found.text)
    if mode is None:
        raise TargetError(f"nvpmodel -q names no power mode: {found.last}")
    return mode


def parse_query(text: str) -> PowerMode | None:
    """Read the answer of `nvpmodel -q`: warnings, `NV Power Mode: NAME`, and the number below."""
    found = re.search(r"NV Power Mode:[ \t]*(\S[^\n]*)\n\s*(\d+)\s*$", text, re.MULTILINE)
    return PowerMode(id=int(found.group(2)), name=found.group(1).strip()) if found else None


def choose_modes(text: str, root: Path = Path("/")) -> tuple[PowerMode, ...]:
    """The modes that a user names.

    Args:
        text: "all", or names as /etc/nvpmodel.conf writes them, as 15W,MAXN_SUPER.
        root: where /etc is looked for.

    Returns:
        Each once, in the order named; for "all" that of the file.

    Raises:
        MissingError: not a Jetson: there is no /etc/nvpmodel.conf.
        VptkitError: the board has no such mode.
    """
    found = power_modes(root)
    if found is None or not found.modes:
        raise MissingError(
            "power modes are a Jetson's: /etc/nvpmodel.conf is not there, or lists none. "
            "In a container, run on the host. Elsewhere, leave --power away."
        )
    if text.strip().lower() == "all":
        return found.modes
    by_name = {_plain(mode.name): mode for mode in found.modes}
    names = [name for name in text.split(",") if name.strip()]
    unknown = [name for name in names if _plain(name) not in by_name]
    if unknown or not names:
        raise VptkitError(
            f"power mode {(unknown or [text])[0]!r} is not known on this board, expected all, or "
            f"some of {', '.join(mode.name for mode in found.modes)}"
        )
    chosen = {_plain(name): by_name[_plain(name)] for name in names}
    return tuple(chosen.values())


def set_mode(mode: PowerMode, run: Run = run_command) -> None:
    """Enter a mode, and ask whether the board is in it.

    Raises:
        RebootNeededError: the board would enter it by a reboot only; nothing was changed.
        TargetError: it was refused, or the board is in another mode afterwards.
    """
    said = run(["nvpmodel", "-m", str(mode.id)])
    now = current_mode(run)
    if now.id == mode.id:
        return
    if _REBOOT.search(said.text):
        raise RebootNeededError(f"power mode {mode.name} (number {mode.id}) needs a reboot")
    raise TargetError(
        f"nvpmodel -m {mode.id} did not set power mode {mode.name}, the board is in {now.name}: "
        f"{said.last}"
    )


def show_clocks(run: Run = run_command) -> list[str] | None:
    """The lines of `jetson_clocks --show`; None where it is not there or wants root."""
    if os.geteuid() != 0 or not has_jetson_clocks():
        return None
    said = run(["jetson_clocks", "--show"])
    return said.text.strip().splitlines() if said.code == 0 else None


def store_clocks(file: Path, run: Run = run_command) -> None:
    """Write down the clocks' limits, for `restore_clocks`.

    Args:
        file: must not exist: jetson_clocks asks before it overwrites.
        run: runs a command.

    Raises:
        TargetError: jetson_clocks failed.
    """
    _jetson_clocks(["--store", str(file)], run)


def pin_clocks(run: Run = run_command) -> list[str]:
    """Pin the clocks to the highest that the mode allows.

    Returns:
        What jetson_clocks could not pin, in its words: it ends with 0 nevertheless.

    Raises:
        TargetError: jetson_clocks failed.
    """
    return _jetson_clocks([], run)


def restore_clocks(file: Path, run: Run = run_command) -> list[str]:
    """Set the clocks' limits back to what a file holds.

    Returns:
        What jetson_clocks could not restore, in its words: it ends with 0 nevertheless.

    Raises:
        TargetError: jetson_clocks failed.
    """
    return _jetson_clocks(["--restore", str(file)], run)


def _jetson_clocks(arguments: list[str], run: Run) -> list[str]:
    said = run(["jetson_clocks", *arguments])
    if said.code != 0:
        command = " ".join(["jetson_clocks", *arguments])
        raise TargetError(f"{command} ended with {said.code}: {said.last}")
    return [line.strip() for line in said.text.splitlines() if line.strip().startswith("Error")]


def _find(command: str) -> str | None:
    # Never from the current folder: it runs as root. The path of a login over ssh may lack sbin.
    path = child_environment().get("PATH")
    system = shutil.which(command, path="/usr/sbin:/usr/bin")
    return (shutil.which(command, path=path) if path else None) or system


def _plain(name: str) -> str:
    """Names as people write them: MAXN SUPER, maxn_super."""
    return name.strip().upper().replace(" ", "_")
