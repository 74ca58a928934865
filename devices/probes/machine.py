"""Which machine is this? Read from /proc and /sys, so that every figure carries its circumstances.

Standard library only, no subprocesses; what cannot be read is None, never a guess.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.devices.drivers.sysfs import read_number, read_text
from vptkit.errors import VptkitError

from .jetson import detect_jetson
from .memory import total_memory

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["cpu_features", "cpu_has_vnni", "detect_machine", "usable_cores", "visible_gpu"]

# /proc/cpuinfo of 64-bit Arm names a core by two numbers: (implementer, part).
_ARM_CORES = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD0E): "Cortex-A76AE",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4B): "Cortex-A78C",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD80): "Cortex-A520",
    (0x41, 0xD81): "Cortex-A720",
    (0x41, 0xD83): "Neoverse-V3AE",
    (0x4E, 0x003): "Denver 2",
    (0x4E, 0x004): "Carmel",
}

# What decides how fast a processor multiplies numbers of lower types: as /proc/cpuinfo calls it.
_FEATURES = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("asimddp", "asimdhp", "i8mm", "bf16", "sve", "sme"),  # of 64-bit Arm
)


def detect_machine(root: Path = Path("/")) -> dict[str, Any]:
    """Describe the machine for a report.

    Args:
        root: where /proc, /sys and /etc are looked for; tests pass a folder of their own.

    Returns:
        JSON-ready: `cpu`, `cpu_features`, `board` (device tree), `arch`, `cores` (physical cores this process may
        use), `threads` (hardware threads it may use), `memory_mb`, `governor`, `frequency_mhz`
        (the highest the governor allows), `os`, `kernel`, `python`, `jetson`
        (`Jetson.to_json`), `gpu` (`Gpu.to_json` of the first one), `device` (key of
        `vptkit.devices.boards.catalog`); None where unknown. `notes` says why parts are unknown.
    """
    cpu = root / "sys/devices/system/cpu/cpu0/cpufreq"
    kilohertz = read_number(cpu / "scaling_max_freq")
    jetson = detect_jetson(root)
    gpu, notes = _gpu(root)
    memory = total_memory(root)
    machine = {
        "cpu": _cpu_model(read_text(root / "proc/cpuinfo") or ""),
        "cpu_features": cpu_features(root),
        "board": read_text(root / "proc/device-tree/model"),
        "arch": platform.machine(),
        "cores": usable_cores(root),
        "threads": len(_allowed()),
        "memory_mb": None if memory is None else round(memory / 2**20),
        "governor": read_text(cpu / "scaling_governor"),
        "frequency_mhz": None if kilohertz is None else round(kilohertz / 1000),
        "os": _os_name(read_text(root / "etc/os-release") or ""),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "jetson": None if jetson is None else jetson.to_json(),
        "gpu": gpu,
        "notes": notes if jetson is None else [*jetson.notes, *notes],
    }
    return {**machine, "device": _device(machine)}


def visible_gpu(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> str | None:
    """What shows that this machine (or container) has a GPU of NVIDIA's, whether its driver works or not.

    A Jetson's name, or the kernel's device file; None without either, and where CUDA_VISIBLE_DEVICES
    hides all GPUs, as on a shared server.

    Args:
        root: where /dev, /proc and /etc are looked for; tests pass a folder of their own.
        environ: the environment.
    """
    if environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return None
    jetson = detect_jetson(root)
    if jetson is not None:
        return jetson.model or "a Jetson"
    return next((f"/{path.relative_to(root)}" for path in root.glob("dev/nvidia[0-9]*")), None)


def cpu_has_vnni(root: Path = Path("/")) -> bool | None:
    """Whether an x86 processor multiplies int8 into 32 bits (VNNI); None for others or unknown."""
    found = re.search(r"^flags\s*:(.*)$", read_text(root / "proc/cpuinfo") or "", re.MULTILINE)
    if found is None:
        return None
    return bool({"avx512_vnni", "avx_vnni"} & set(found.group(1).split()))


def cpu_features(root: Path = Path("/")) -> list[str] | None:
    """What the processor has for fast products of int8, bf16 and fp16; None where it is unknown.

    By the kernel's names: VNNI and AMX of x86, dot products (asimddp, i8mm) and bf16 of Arm.
    """
    cpuinfo = read_text(root / "proc/cpuinfo") or ""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    if found is None:
        return None
    has = set(found.group(1).split())
    return [name for name in _FEATURES if name in has]


def usable_cores(root: Path = Path("/")) -> int:
    """Physical cores that this process may use: by affinity, capped by a container's CPU quota.

    Two hardware threads of one core share its arithmetic units, so they count once.
    """
    cores = set()
    for cpu in _allowed():
        siblings = read_text(
            root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        )
        cores.add(siblings or str(cpu))
    quota = (read_text(root / "sys/fs/cgroup/cpu.max") or "max").split()
    if len(quota) == 2 and quota[0] != "max":
        return max(1, min(len(cores), int(quota[0]) // int(quota[1])))
    return len(cores)


def _allowed() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _gpu(root: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The first GPU, or None and why. A made-up root has none: drivers answer for this machine."""
    if root != Path("/"):
        return None, []
    # ctypes and a driver: only where they are asked for
    from vptkit.devices.drivers.cuda import probe

    try:
        return probe().to_json(), []
    except VptkitError as error:
        return None, [f"gpu: {error}"]


def _device(machine: dict[str, Any]) -> str | None:
    """Key of the board that the facts stand for."""
    from vptkit.devices.boards.catalog import match  # reads its tables

    gpu, jetson = machine["gpu"] or {}, machine["jetson"] or {}
    # A container's limit says nothing about the board; the GPU's memory does.
    memory = round(gpu["memory_bytes"] / 2**20) if gpu else machine["memory_mb"]
    board = match(
        {
            "part": jetson.get("part"),
            "gpu": gpu.get("name"),
            "cc": gpu.get("capability"),
            "memory_mb": memory,
            "arch": "aarch64" if jetson else machine["arch"],
        }
    )
    return None if board is None else board.key


def _cpu_model(cpuinfo: str) -> str | None:
    """x86 writes a model name; 64-bit Arm writes numbers, one group for each core."""
    if named := re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE):
        return named.group(1).strip()
    implementers = re.findall(r"^CPU implementer\s*:\s*(0x[0-9a-fA-F]+)", cpuinfo, re.MULTILINE)
    parts = re.findall(r"^CPU part\s*:\s*(0x[0-9a-fA-F]+)", cpuinfo, re.MULTILINE)
    ids = [(int(i, 16), int(p, 16)) for i, p in zip(implementers, parts, strict=False)]
    names = [_ARM_CORES.get(key, f"Arm {key[0]:#x}/{key[1]:#x}") for key in ids]
    counted = [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
    return " + ".join(counted) or None


def _os_name(os_release: str) -> str:
    named = re.search(r'^PRETTY_NAME="?([^"\n]+)"?$', os_release, re.MULTILINE)
    return named.group(1) if named else platform.system()
