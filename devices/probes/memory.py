"""Memory of this machine and of this process; a container's limit counts as the machine's size."""

from __future__ import annotations

import re
from pathlib import Path

from vptkit.devices.drivers.sysfs import read_number, read_text

__all__ = ["free_memory", "process_memory", "swap_free", "total_memory"]

_GROUP = "sys/fs/cgroup"  # of a container, as seen from inside


def total_memory(root: Path = Path("/")) -> int | None:
    """Bytes of memory, or None where the system does not tell."""
    sizes = (
        _sizes(root / "proc/meminfo").get("MemTotal"),
        read_number(root / _GROUP / "memory.max"),
    )
    return min((size for size in sizes if size is not None), default=None)


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that programs can still have, the system's caches given up; None if it is not told."""
    sizes = [_sizes(root / "proc/meminfo").get("MemAvailable")]
    limit, used = (read_number(root / _GROUP / f"memory.{name}") for name in ("max", "current"))
    if limit is not None and used is not None:
        cache = re.search(
            r"^inactive_file (\d+)$", read_text(root / _GROUP / "memory.stat") or "", re.MULTILINE
        )
        sizes.append(max(limit - used + int(cache[1] if cache else 0), 0))
    return min((size for size in sizes if size is not None), default=None)


def swap_free(root: Path = Path("/")) -> int:
    """Bytes of swap that are free."""
    return _sizes(root / "proc/meminfo").get("SwapFree", 0)


def process_memory() -> tuple[float, float]:
    """MiB that this process holds, and the most it ever held.

    Not getrusage: its peak is inherited from the parent, through exec.
    """
    sizes = _sizes(Path("/proc/self/status"))
    return sizes["VmRSS"] / 2**20, sizes["VmHWM"] / 2**20


def _sizes(file: Path) -> dict[str, int]:
    """Lines such as "MemTotal:  7802588 kB", in bytes."""
    found = re.findall(r"^(\w+):\s*(\d+) kB$", read_text(file) or "", re.MULTILINE)
    return {name: int(size) * 1024 for name, size in found}
