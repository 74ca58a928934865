"""Meters of power: a Jetson's rails, an NVIDIA GPU, an x86 processor's packages.

rails    INA3221 and INA238 on the board's I2C bus, through hwmon: volts and amperes of each rail
NVML     a GPU's energy counter, else its power
RAPL     energy counters of packages and memory in /sys/class/powercap; usually root's to read

Unverified on a board: the rails' names and units are those of NVIDIA's documents and public reports.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from vptkit.devices.drivers.sysfs import read_number, read_text
from vptkit.errors import MissingError

if TYPE_CHECKING:
    from vptkit.devices.drivers.nvml import Nvml

__all__ = ["Meter", "NvmlMeter", "RailMeter", "RaplMeter", "find_meter"]

# Rails that carry the whole board, the first that is there; see also `total_rails`.
_INPUTS = ("VIN", "POM_5V_IN", "VDD_IN")
# AGX Orin has no such rail. Its 1.8 V memory rail is left out: whether VIN_SYS_5V0 feeds it is not
# documented, and a watt counted twice is worse than a small one left out.
_AGX_ORIN = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")


class Meter(Protocol):
    """Something that measures power."""

    @property
    def source(self) -> str:
        """What it is, in words."""

    @property
    def counts(self) -> Literal["watts", "joules"]:
        """Watts at a moment, or joules since some start."""

    @property
    def total(self) -> tuple[str, ...]:
        """The rails whose sum is the whole."""

    def read(self) -> dict[str, float]:
        """Rail → watts, or joules. A rail that cannot be read just now is missing."""


def find_meter(
    kind: Literal["cpu", "gpu"], root: Path = Path("/"), nvml: Nvml | None = None
) -> Meter:
    """The meter that sees what a backend consumes.

    Args:
        kind: what does the work. A board's rails see both; elsewhere NVML sees the GPU alone, and
            RAPL the processor alone.
        root: where /sys is looked for.
        nvml: the GPU, if it answers.

    Raises:
        MissingError: there is none, and why.
    """
    rails = RailMeter.find(root)
    if rails is not None:
        return rails
    if kind == "cpu":
        return RaplMeter.find(root)
    if nvml is None or (nvml.joules() is None and nvml.watts() is None):
        raise MissingError("no rails in hwmon, and NVML tells neither energy nor power")
    return NvmlMeter(nvml, "watts" if nvml.joules() is None else "joules")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rail:
    """Files of one rail: millivolts and milliamperes, or microwatts."""

    volts: Path
    amperes: Path
    watts: Path | None = None

    def read(self) -> float | None:
        microwatts = None if self.watts is None else read_number(self.watts)
        if microwatts is not None:
            return microwatts / 1e6
        volts, amperes = read_number(self.volts), read_number(self.amperes)
        return None if volts is None or amperes is None else volts * amperes / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class RailMeter:
    """The INA3221 and INA238 chips of a board."""

    source: str
    rails: dict[str, _Rail] = field(repr=False)
    counts: Literal["watts"] = "watts"

    @classmethod
    def find(cls, root: Path = Path("/")) -> RailMeter | None:
        """Look through hwmon; None without such a chip."""
        rails: dict[str, _Rail] = {}
        chips: set[str] = set()
        seen: set[Path] = set()
        patterns = ("sys/class/hwmon/hwmon*", "sys/bus/i2c/devices/*/hwmon/hwmon*")
        for folder in (f for pattern in patterns for f in sorted(root.glob(pattern))):
            # Older kernels name the I2C device only.
            name = read_text(folder / "name") or read_text(folder.parent.parent / "name") or ""
            chip = next((c for c in ("ina3221", "ina238") if c in name), None)
            if chip is None or folder.resolve() in seen:
                continue
            seen.add(folder.resolve())
            found = _ina3221(folder) if chip == "ina3221" else _ina238(folder)
            rails |= {k: v for k, v in found.items() if k not in rails}
            chips |= {chip.upper()} if found else set()
        return cls(source=" and ".join(sorted(chips)), rails=rails) if rails else None

    @property
    def total(self) -> tuple[str, ...]:
        """The rails whose sum is the whole board."""
        for name in _INPUTS:
            if name in self.rails:
                return (name,)
        return _AGX_ORIN if set(_AGX_ORIN) <= self.rails.keys() else tuple(self.rails)

    def read(self) -> dict[str, float]:
        """Rail → watts."""
        read = {name: rail.read() for name, rail in self.rails.items()}
        return {name: value for name, value in read.items() if value is not None}


@dataclass(frozen=True, slots=True)
class NvmlMeter:
    """A GPU's board power, by its energy counter where it has one (Volta and newer)."""

    nvml: Nvml
    counts: Literal["watts", "joules"]

    @property
    def source(self) -> str:
        """In words."""
        return "NVML energy counter" if self.counts == "joules" else "NVML power"

    @property
    def total(self) -> tuple[str, ...]:
        """The GPU, alone."""
        return ("gpu",)

    def read(self) -> dict[str, float]:
        """{"gpu": joules or watts}."""
        value = self.nvml.joules() if self.counts == "joules" else self.nvml.watts()
        return {} if value is None else {"gpu": value}


@dataclass(slots=True, kw_only=True)
class RaplMeter:
    """The energy counters of x86 packages; they wrap around, so `read` adds up differences.

    Cores and graphics are part of their package; memory ("dram") is not.
    """

    files: dict[str, Path]
    ranges: dict[str, int]
    source: str = "RAPL"
    counts: Literal["joules"] = "joules"
    _last: dict[str, int] = field(default_factory=dict)
    _sums: dict[str, int] = field(default_factory=dict)  # microjoules

    @classmethod
    def find(cls, root: Path = Path("/")) -> RaplMeter:
        """Look through /sys/class/powercap.

        Raises:
            MissingError: no such counters, or they are root's to read.
        """
        files, ranges, locked = {}, {}, False
        for zone in sorted(root.glob("sys/class/powercap/intel-rapl:*")):
            file, top = zone / "energy_uj", read_number(zone / "max_energy_range_uj")
            if top is None:
                continue
            if read_number(file) is None:
                locked = locked or file.exists()
                continue
            name = read_text(zone / "name") or zone.name
            parent = zone.name.split(":")[1]
            name = name if zone.name.count(":") == 1 else f"{name}-{parent}"
            files[name], ranges[name] = file, top
        if not files and locked:
            raise MissingError("RAPL: /sys/class/powercap/*/energy_uj is root's to read (use sudo)")
        if not files:
            raise MissingError("no rails in hwmon, and no RAPL in /sys/class/powercap")
        return cls(files=files, ranges=ranges)

    @property
    def total(self) -> tuple[str, ...]:
        """Packages and their memory; on AMD and Intel alike."""
        return tuple(n for n in self.files if n.startswith(("package", "dram"))) or tuple(
            self.files
        )

    def read(self) -> dict[str, float]:
        """Zone → joules since the first read."""
        for name, file in self.files.items():
            now = read_number(file)
            if now is None:
                continue
            step = now - self._last.get(name, now)
            # The counter starts again at 0 after its range.
            self._sums[name] = self._sums.get(name, 0) + (
                step if step >= 0 else step + self.ranges[name]
            )
            self._last[name] = now
        return {name: value / 1e6 for name, value in self._sums.items()}


def _ina3221(folder: Path) -> dict[str, _Rail]:
    """Three channels; NC is one that nothing hangs on. in7 is the sum of the shunts: skipped."""
    found = {}
    for n in (1, 2, 3):
        label = read_text(folder / f"in{n}_label")
        rail = _Rail(volts=folder / f"in{n}_input", amperes=folder / f"curr{n}_input")
        if label is not None and label != "NC" and rail.read() is not None:
            found[label] = rail
    return found


def _ina238(folder: Path) -> dict[str, _Rail]:
    """The input of a Thor, which may go without a label."""
    rail = _Rail(
        volts=folder / "in1_input",
        amperes=folder / "curr1_input",
        watts=folder / "power1_input",
    )
    label = read_text(folder / "in1_label") or "VIN"
    return {} if rail.read() is None else {label: rail}
