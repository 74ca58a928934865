"""The state that a measurement ran in: power mode, clocks, temperatures, throttling, load.

A figure holds for its state only. `read_state` before and after, `compare_states` for what
happened in between.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.devices.probes.clocks import read_clocks, read_temperatures, read_throttling
from vptkit.errors import VptkitError

from .nvpmodel import current_mode, has_nvpmodel, run_command, show_clocks

if TYPE_CHECKING:
    from vptkit.devices.drivers.nvml import Nvml

    from .nvpmodel import Run

__all__ = ["compare_states", "read_operating_state"]

_DRIFT = 0.01  # a pinned clock that moves by more was not pinned
_HELD_BACK = 1_000_000  # nanoseconds; NVML counts idle glitches of microseconds


def read_operating_state(
    root: Path = Path("/"), nvml: Nvml | None = None, run: Run = run_command
) -> dict[str, Any]:
    """Read everything that is there to read.

    Args:
        root: where /sys is looked for.
        nvml: the GPU, where NVML answers.
        run: runs `nvpmodel -q` and, as root, `jetson_clocks --show`.

    Returns:
        JSON-ready: "power_mode" {"id", "name"} or None; "clocks" and "temperatures" and
        "throttling" as `devices.clocks` reads them; "gpu" as `devices.nvml` does, or None;
        "jetson_clocks", its lines or None; "load", the average of the last minute.
    """
    return {
        # First what passes soonest after a load.
        "gpu": None if nvml is None else nvml.read(),
        "throttling": read_throttling(root),
        "clocks": read_clocks(root),
        "temperatures": read_temperatures(root),
        "power_mode": _power_mode(run),
        "jetson_clocks": show_clocks(run),
        "load": round(os.getloadavg()[0], 2),
    }


def compare_states(before: dict[str, Any], after: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What happened between two states.

    Returns:
        (signs of throttling, changes of the power mode and of the clocks), in words. A clock that
        a governor moves within its limits is no change; a pinned one that moves is.
    """
    return _throttled(before, after), _changed(before, after)


def _throttled(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    found = [f"{name} was on" for name in after["throttling"]["active"]]
    counted = before["throttling"]["counters"]
    for name, value in after["throttling"]["counters"].items():
        if name in counted and value > counted[name]:
            found.append(f"{name}: {value - counted[name]} events")
    ours, theirs = after["gpu"] or {}, before["gpu"] or {}
    found += [f"GPU: {reason}" for reason in ours.get("throttling") or ()]
    earlier = theirs.get("held_back_ns", {})
    for reason, value in ours.get("held_back_ns", {}).items():
        held = value - earlier.get(reason, value)
        if held > _HELD_BACK:
            found.append(f"GPU: held back {held / 1e6:.0f} ms ({reason})")
    return found


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    found = []
    modes = [state["power_mode"] and state["power_mode"]["name"] for state in (before, after)]
    if modes[0] != modes[1]:
        found.append(f"power mode: {modes[0]}, then {modes[1]}")
    for name, clock in before["clocks"].items():
        now = after["clocks"].get(name)
        if now is not None:
            found += _moved(name, clock, now)
    return found


def _moved(name: str, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    limits = [(c["min_mhz"], c["max_mhz"], c["governor"]) for c in (before, after)]
    if limits[0] != limits[1]:
        texts = [f"{_plain(low)} to {_plain(high)} MHz {gov or ''}" for low, high, gov in limits]
        return [f"{name}: {texts[0].strip()}, then {texts[1].strip()}"]
    mhz = before["mhz"], after["mhz"]
    # 0 is a GPU that is switched off because nothing runs.
    if before["pinned"] and all(mhz) and abs(mhz[1] - mhz[0]) > _DRIFT * mhz[0]:
        return [f"{name}: pinned at {mhz[0]:g} MHz, then {mhz[1]:g} MHz"]
    return []


def _power_mode(run: Run) -> dict[str, Any] | None:
    if not has_nvpmodel():
        return None
    try:
        mode = current_mode(run)
    except VptkitError:  # a container has the command and not the rest
        return None
    return {"id": mode.id, "name": mode.name}


def _plain(mhz: float | None) -> str:
    return "?" if mhz is None else f"{mhz:g}"
