"""Clocks, temperatures and signs of throttling, read from /sys.

Paths of Jetson boards: L4T 35 to 39, from NVIDIA's developer guide and public reports; unverified
on a board. The memory's clock (EMC) is in debugfs, which only root may read. What cannot be read is
missing, never zero: a GPU that is switched off reports no temperature, or -256.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.devices.drivers.sysfs import read_number, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["read_clocks", "read_temperatures", "read_throttling"]

_GPU = re.compile(r"gpu|ga10b|gv11b|gp10b|gm20b")
# Cooling devices that slow something down; the others are fans.
_SLOWING = re.compile(r"throttle|cpufreq|devfreq|processor|\.gpu|gpu-", re.IGNORECASE)
# Where the GPU's devfreq lies if /sys/class/devfreq does not list it (L4T 35, 36)
_GPU_FOLDERS = (
    "sys/devices/platform/*.gpu/devfreq_dev",
    "sys/devices/platform/bus@0/*.gpu/devfreq/*",
    "sys/devices/*.ga10b/devfreq/*",
    "sys/devices/gpu.0/devfreq/*",
)
_COLDEST = -100_000  # millidegrees; below that a sensor means "no reading"


def read_clocks(root: Path = Path("/")) -> dict[str, dict[str, Any]]:
    """The clocks of processor, GPU and memory.

    Returns:
        name → {"mhz", "min_mhz", "max_mhz": what the governor may choose, "pinned": it may choose
        nothing, "governor"}. Names are cpu (or cpu0, cpu4, … where clusters differ), gpu (or the
        kernel's names where there are several) and emc.
    """
    return {**_cpu(root), **_gpu(root), **_emc(root)}


def read_temperatures(root: Path = Path("/")) -> dict[str, float]:
    """Thermal zone → degrees Celsius; a Jetson's tj-thermal is the hottest spot of the chip."""
    found: dict[str, float] = {}
    for zone in _folders(root, "sys/class/thermal/thermal_zone*"):
        value = read_number(zone / "temp")
        if value is None or value < _COLDEST:
            continue
        name = read_text(zone / "type") or zone.name
        found[name if name not in found else f"{name} {zone.name[12:]}"] = value / 1000
    return found


def read_throttling(root: Path = Path("/")) -> dict[str, Any]:
    """What slows the machine down now, and how often it was slowed down so far.

    Returns:
        {"active": cooling devices that are on, "counters": name → events since boot}. Counters are
        over-current and under-voltage events of a Jetson (oc1: under-voltage, oc2 and oc3: average
        and instantaneous over-current, on Orin), its thermal alerts, and the thermal throttling of
        x86 cores and packages. A profile looks at differences.
    """
    active = []
    for device in _folders(root, "sys/class/thermal/cooling_device*"):
        name, state = read_text(device / "type") or "", read_number(device / "cur_state")
        if state is not None and state > 0 and _SLOWING.search(name):
            active.append(name)
    counters: dict[str, int] = {}
    for file in sorted(root.glob("sys/class/hwmon/hwmon*/oc*_event_cnt")):
        _count(counters, file.name.removesuffix("_event_cnt"), file)
    for file in sorted(root.glob("sys/devices/platform/*-throttle-alert/thermal_trip_event")):
        _count(counters, file.parent.name, file)
    for kind in ("core", "package"):
        for file in root.glob(
            f"sys/devices/system/cpu/cpu*/thermal_throttle/{kind}_throttle_count"
        ):
            _count(counters, f"{kind}_throttle", file)
    return {"active": sorted(set(active)), "counters": counters}


def _cpu(root: Path) -> dict[str, dict[str, Any]]:
    """Policies with the same limits count as one, at the highest clock of theirs."""
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for policy in _folders(root, "sys/devices/system/cpu/cpufreq/policy*"):
        low, high = (_mhz(policy / f"scaling_{k}_freq", 1000) for k in ("min", "max"))
        governor = read_text(policy / "scaling_governor")
        now = _mhz(policy / "scaling_cur_freq", 1000)
        entry = _clock(now, low, high, governor) | {"name": f"cpu{policy.name[6:]}"}
        kept = groups.setdefault((low, high, governor), entry)
        if now is not None and (kept["mhz"] is None or now > kept["mhz"]):
            kept["mhz"] = now
    found = {entry.pop("name"): entry for entry in groups.values()}
    return {"cpu": next(iter(found.values()))} if len(found) == 1 else found


def _gpu(root: Path) -> dict[str, dict[str, Any]]:
    listed = [f for f in _folders(root, "sys/class/devfreq/*") if _GPU.search(f.name)]
    if not listed:
        places = (_folders(root, pattern) for pattern in _GPU_FOLDERS)
        listed = next((list(found) for found in places if found), [])
    clocks = {}
    for folder in listed:
        now, low, high = (_mhz(folder / f"{k}_freq", 1_000_000) for k in ("cur", "min", "max"))
        if (now, low, high) != (None, None, None):
            clocks[folder.name] = _clock(now, low, high, read_text(folder / "governor"))
    return {"gpu": next(iter(clocks.values()))} if len(clocks) == 1 else clocks


def _emc(root: Path) -> dict[str, dict[str, Any]]:
    folder = root / "sys/kernel/debug/bpmp/debug/clk/emc"
    now, low, high = (_mhz(folder / k, 1_000_000) for k in ("rate", "min_rate", "max_rate"))
    cap = _mhz(root / "sys/kernel/nvpmodel_clk_cap/emc", 1_000_000)
    if cap is not None and high is not None:
        high = min(cap, high)
    high = cap if high is None else high
    if (now, high) == (None, None):
        return {}
    locked = read_number(folder / "mrq_rate_locked")
    return {
        "emc": _clock(now, low, high, None) | {"pinned": None if locked is None else locked == 1}
    }


def _clock(
    now: float | None, low: float | None, high: float | None, governor: str | None
) -> dict[str, Any]:
    pinned = None if low is None or high is None else low == high
    return {"mhz": now, "min_mhz": low, "max_mhz": high, "pinned": pinned, "governor": governor}


def _count(counters: dict[str, int], name: str, file: Path) -> None:
    value = read_number(file)
    if value is not None:
        # Cores of one package report its counter each: the sum grows whenever one of them does.
        counters[name] = counters.get(name, 0) + value


def _mhz(path: Path, unit: int) -> float | None:
    """Whole numbers of hertz (unit 1e6) or kilohertz (unit 1000)."""
    value = read_number(path)
    return None if value is None or value < 0 else round(value / unit, 1)


def _folders(root: Path, pattern: str) -> list[Path]:
    """In the order of their numbers: zone2 before zone10."""

    def key(path: Path) -> list[tuple[int, str]]:
        return [(int(d or 0), t) for t, d in re.findall(r"(\D*)(\d*)", path.name)]

    found: Iterable[Path] = root.glob(pattern)
    return sorted((p for p in found if p.is_dir()), key=key)
