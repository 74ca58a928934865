"""Which Jetson is this? Read from files, without a command and without root.

/proc/device-tree        the product's name, which a carrier board may have copied from another
                         module, and the part number, which is right
/etc/nv_boot_control.conf  the part number once more, where the device tree stands for several
/etc/nv_tegra_release    the release of L4T, from which JetPack's follows
/etc/nvpmodel.conf, /var/lib/nvpmodel/status   the power modes, and which was set last

Containers hide /proc/device-tree unless it is mounted. Formats as published by NVIDIA and in
reports from boards (tests/support/trees); unverified: none was read on a board by us.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.devices.drivers.sysfs import read_text

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Jetson", "PowerMode", "PowerModes", "detect_jetson", "parse_power_modes", "power_modes"]

# Families of part numbers that are modules; others in a device tree are carrier boards. In order:
# Thor, Orin Nano and NX, AGX Orin, Xavier NX, AGX Xavier, TX2, TX2i, TX2 NX, Nano.
_MODULES = {"3834", "3767", "3701", "3668", "2888", "3310", "3489", "3636", "3448"}
# Exact releases only; another one stays unknown. Sources: `tensorrt.md` 4.3 (jetson-stats 7.2.2),
# and public tables read off NVIDIA's JetPack archive.
_JETPACKS = {
    "39.2.2": "7.2.2",
    "39.2.1": "7.2.1",
    "39.2.0": "7.2",
    "38.4.0": "7.1",
    "38.2.2": "7.0",
    "38.2.1": "7.0",
    "38.2.0": "7.0",
    "36.5.2": "6.2.3",
    "36.5.0": "6.2.2",
    "36.4.7": "6.2.1",
    "36.4.4": "6.2.1",
    "36.4.3": "6.2",
    "36.4.2": "6.1.1",
    "36.4.0": "6.1",
    "36.3.0": "6.0",
    "35.6.4": "5.1.6",
    "35.6.2": "5.1.5",
    "35.6.1": "5.1.5",
    "35.6.0": "5.1.4",
    "35.5.0": "5.1.3",
    "35.4.1": "5.1.2",
    "35.3.1": "5.1.1",
    "35.2.1": "5.1",
    "35.1.0": "5.0.2",
    "32.7.6": "4.6.6",
}
_UNLIMITED = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerMode:
    """One mode of /etc/nvpmodel.conf. The same number is another mode on another module.

    Attributes:
        id: what `nvpmodel -m` takes.
        name: such as MAXN_SUPER or MODE_15W_6CORE.
        settings: every line of the mode as written, "GPU MAX_FREQ" → "612000000".
    """

    id: int
    name: str
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def gpu_max_hz(self) -> int | None:
        """The cap of the GPU's clock; None without one."""
        return self._cap("GPU MAX_FREQ")

    @property
    def emc_max_hz(self) -> int | None:
        """The cap of the memory's clock; None without one."""
        return self._cap("EMC MAX_FREQ")

    @property
    def tpc_mask(self) -> int | None:
        """Bits of the GPU's texture processing clusters (two SMs each) that are switched off."""
        return _integer(self.settings.get("TPC_POWER_GATING TPC_PG_MASK"))

    @property
    def cores(self) -> int:
        """CPU cores that the mode switches on; 0 if it says nothing of cores."""
        return sum(
            value == "1" for key, value in self.settings.items() if key.startswith("CPU_ONLINE ")
        )

    def _cap(self, key: str) -> int | None:
        value = _integer(self.settings.get(key))
        return None if value is None or value < 0 else value


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerModes:
    """The modes of a board.

    Attributes:
        modes: in the order of the file.
        default: number of the mode that a fresh board boots into.
        current: number of the mode that was set last. A board that failed to set it at boot (its
            nvpmodel.service tells) still has it here.
    """

    modes: tuple[PowerMode, ...]
    default: int | None
    current: int | None

    @property
    def mode(self) -> PowerMode | None:
        """The current one; None if it is unknown."""
        return next((mode for mode in self.modes if mode.id == self.current), None)

    @property
    def fastest(self) -> PowerMode | None:
        """The mode that caps least: MAXN by name, else by GPU clock, memory clock, CPU cores."""
        return max(self.modes, key=_speed, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Jetson:
    """What the files tell; None where they do not.

    Attributes:
        model: the product's name. Free text: trust `part`.
        part: the module's part number and variant, such as p3767-0003.
        soc: such as tegra234.
        l4t: release of Jetson Linux, such as 36.4.4.
        jetpack: release of JetPack, such as 6.2.1.
        power: the power modes.
        notes: what could not be found out, and why.
    """

    model: str | None
    part: str | None
    soc: str | None
    l4t: str | None
    jetpack: str | None
    power: PowerModes | None = field(repr=False)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As reports write it."""
        mode = self.power.mode if self.power is not None else None
        return {
            "model": self.model,
            "part": self.part,
            "soc": self.soc,
            "l4t": self.l4t,
            "jetpack": self.jetpack,
            "power_mode": None if mode is None else {"id": mode.id, "name": mode.name},
            "notes": list(self.notes),
        }


def detect_jetson(root: Path = Path("/")) -> Jetson | None:
    """Describe the Jetson that this is.

    Args:
        root: where /proc, /etc and /var are looked for; tests pass a folder of their own.

    Returns:
        None on any other machine.
    """
    compatible = (read_text(root / "proc/device-tree/compatible") or "").split("\0")
    soc = next((c[7:] for c in compatible if c.startswith("nvidia,tegra")), None)
    release = read_text(root / "etc/nv_tegra_release")
    kernel = read_text(root / "proc/sys/kernel/osrelease") or ""
    if soc is None and release is None and not kernel.endswith("-tegra"):
        return None
    part, part_note = _part(root, compatible)
    l4t = _l4t(release or "")
    jetpack = _JETPACKS.get(l4t or "")
    modes = power_modes(root)
    notes = [part_note] if part_note else []
    if l4t is None:
        notes.append("L4T: /etc/nv_tegra_release is not there (a container?) or of another format")
    elif jetpack is None:
        notes.append(f"JetPack: L4T {l4t} is not in the table of known releases")
    if modes is None:
        notes.append("power mode: /etc/nvpmodel.conf is not there (a container?)")
    elif modes.mode is None:
        notes.append("power mode: /var/lib/nvpmodel/status names none of the board's modes")
    return Jetson(
        model=read_text(root / "proc/device-tree/model"),
        part=part,
        soc=soc,
        l4t=l4t,
        jetpack=jetpack,
        power=modes,
        notes=tuple(notes),
    )


def power_modes(root: Path = Path("/")) -> PowerModes | None:
    """The modes of /etc/nvpmodel.conf and the current one; None without that file."""
    conf = read_text(root / "etc/nvpmodel.conf")
    if conf is None:
        return None
    modes, default = parse_power_modes(conf)
    status = re.search(r"pmode:(\d+)", read_text(root / "var/lib/nvpmodel/status") or "")
    current = int(status.group(1)) if status else None
    return PowerModes(modes=modes, default=default, current=current)


def parse_power_modes(conf: str) -> tuple[tuple[PowerMode, ...], int | None]:
    """Read the text of an nvpmodel.conf.

    Returns:
        (the modes, the number of the default one).
    """
    modes: list[PowerMode] = []
    default: int | None = None
    settings: dict[str, str] | None = None  # None outside of a mode: the file defines names there
    for line in conf.splitlines():
        head = re.match(r"\s*<\s*(\w+)\s+(.*?)\s*>", line)
        if head is None:
            words = line.partition("#")[0].split()
            if settings is not None and len(words) == 3:
                settings[f"{words[0]} {words[1]}"] = words[2]
            continue
        values = dict(re.findall(r"(\w+)\s*=\s*(\S+)", head.group(2)))
        settings = None
        if head.group(1) == "POWER_MODEL" and {"ID", "NAME"} <= values.keys():
            settings = {}
            modes.append(PowerMode(id=int(values["ID"]), name=values["NAME"], settings=settings))
        elif head.group(1) == "PM_CONFIG":
            default = _integer(values.get("DEFAULT"))
    return tuple(modes), default


def _part(root: Path, compatible: list[str]) -> tuple[str | None, str | None]:
    """(part number, or None and why)."""
    dts = Path(read_text(root / "proc/device-tree/nvidia,dtsfilename") or "").name
    boot = read_text(root / "etc/nv_boot_control.conf") or ""
    spec = re.search(r"^TNSPEC\s+(\d{4})-[^-\s]*-(\d{4})-", boot, re.MULTILINE)
    found = _modules(" ".join(compatible))
    if len(found) != 1 and spec is not None and spec.group(1) in _MODULES:
        found = {f"p{spec.group(1)}-{spec.group(2)}"}
    found = found or _modules(dts)
    if len(found) == 1:
        return found.pop(), None
    if found:
        return None, f"module: the device tree stands for several, {', '.join(sorted(found))}"
    if compatible == [""]:
        return None, "module: /proc/device-tree is not there (in a container, mount it)"
    return None, f"module: no part number known among {', '.join(compatible)}"


def _modules(text: str) -> set[str]:
    """Part numbers of modules in a text."""
    pairs = re.findall(r"p(\d{4})-(\d{4})", text)
    return {f"p{family}-{variant}" for family, variant in pairs if family in _MODULES}


def _l4t(release: str) -> str | None:
    found = re.search(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", release)
    return f"{found.group(1)}.{found.group(2)}" if found else None


def _speed(mode: PowerMode) -> tuple[float, ...]:
    mask = mode.tpc_mask or 0
    return (
        mode.name.startswith("MAXN"),
        -bin(mask).count("1"),
        _UNLIMITED if mode.gpu_max_hz is None else mode.gpu_max_hz,
        _UNLIMITED if mode.emc_max_hz is None else mode.emc_max_hz,
        mode.cores,
    )


def _integer(text: str | None) -> int | None:
    try:
        return None if text is None else int(text, 0)
    except ValueError:
        return None
