"""A board made of files: nvpmodel and jetson_clocks as scripts, its state in a folder.

They answer as NVIDIA's do in public reports: warnings before the answer, a question on standard
input where a mode needs a reboot or a file would be overwritten.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["STEADY", "FakeBoard", "make_board", "watchdog_of"]

# The state of a machine that nothing happens to
STEADY = {
    "power_mode": None,
    "clocks": {},
    "temperatures": {},
    "throttling": {"active": [], "counters": {}},
    "gpu": None,
    "jetson_clocks": None,
    "load": 0.0,
}

NVPMODEL = """#!/bin/sh
cd {folder} || exit 1
if [ "$1" = -q ]; then
    echo "NVPM WARN: fan mode is not set!"
    echo "NV Power Mode: $(cat "name.$(cat mode)")"
    cat mode
    exit 0
fi
echo "nvpmodel $*" >> log
if [ -e broken ] && [ -e "broken/$2" ]; then
    echo "NVPM ERROR: Error opening /sys/devices/system/cpu/cpu1/online: 13"
    exit 255
fi
if [ -e "reboot.$2" ]; then
    echo "NVPM WARN: Reboot required for changing to this power mode: $2"
    echo "NVPM WARN: DO YOU WANT TO REBOOT NOW? enter YES/yes to confirm:"
    read -r answer || { echo "NVPM ERROR: bad input!"; exit 255; }
    echo "reboot" >> log
fi
if [ -e "kill.$2" ]; then kill -KILL "$PPID"; sleep 1; echo "late nvpmodel $*" >> log; fi
echo "$2" > mode
echo "free of mode $2" > clocks
if [ -e "signal.$2" ]; then kill -INT "$PPID"; fi
"""

JETSON_CLOCKS = """#!/bin/sh
cd {folder} || exit 1
case "$1" in
    --show) cat clocks; exit 0 ;;
    --store)
        if [ -e "$2" ]; then read -r answer || exit 1; fi
        cat clocks > "$2" ;;
    --restore) cat "$2" > clocks ;;
    "") echo "pinned in mode $(cat mode)" > clocks ;;
    *) echo "unknown option $1"; exit 1 ;;
esac
echo "jetson_clocks $1" >> log
if [ "$1" != --store ] && [ -e half ]; then echo "Error: Failed to max or restore the GPU"; fi
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeBoard:
    """Where it lies: `bin` belongs on PATH."""

    folder: Path
    bin: Path

    @property
    def log(self) -> list[str]:
        """What was changed, in order."""
        file = self.folder / "log"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def mode(self) -> int:
        """The number of the mode it is in."""
        return int((self.folder / "mode").read_text())

    @property
    def clocks(self) -> str:
        """The state of its clocks, in words."""
        return (self.folder / "clocks").read_text().strip()

    def half_fails(self) -> None:
        """Let jetson_clocks complain when it sets clocks, and end with 0, as NVIDIA's does."""
        (self.folder / "half").touch()

    def needs_reboot(self, number: int) -> None:
        """Let a mode be entered by a reboot only."""
        (self.folder / f"reboot.{number}").touch()

    def interrupts(self, number: int) -> None:
        """Send SIGINT to whoever enters a mode."""
        (self.folder / f"signal.{number}").touch()

    def kills(self, number: int) -> None:
        """Kill whoever enters a mode, and enter it a second later."""
        (self.folder / f"kill.{number}").touch()

    def fails(self, number: int) -> None:
        """Refuse a mode, as to those who are not root."""
        (self.folder / "broken").mkdir(exist_ok=True)
        (self.folder / "broken" / str(number)).touch()


def make_board(folder: Path, modes: dict[int, str], mode: int) -> FakeBoard:
    """Write the scripts; the board is in `mode`, and its clocks were pinned by someone."""
    state, scripts = folder / "board", folder / "bin"
    for path in (state, scripts):
        path.mkdir(parents=True)
    for number, name in modes.items():
        (state / f"name.{number}").write_text(name + "\n")
    (state / "mode").write_text(f"{mode}\n")
    (state / "clocks").write_text("as someone left them\n")
    for name, text in (("nvpmodel", NVPMODEL), ("jetson_clocks", JETSON_CLOCKS)):
        (scripts / name).write_text(text.replace("{folder}", f"'{state}'"))
        (scripts / name).chmod(0o755)
    return FakeBoard(folder=state, bin=scripts)


def watchdog_of(pid: int) -> int:
    """The number of the process that restores the board if another one dies."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (entry / "stat").read_text().rpartition(") ")[2].split()[1]
            if int(parent) == pid and b"vptkit.devices.power.watchdog" in (
                (entry / "cmdline").read_bytes().split(b"\0")
            ):
                found.append(int(entry.name))
    (watchdog,) = found
    return watchdog
