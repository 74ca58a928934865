"""What a machine brings: board, JetPack, driver, power mode, clocks, disk, memory, packages.

Read from files and from this Python; nothing is started. `vptkit.runtime.doctor.diagnosis` adds what the
libraries say.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from vptkit.devices.boards.jetpacks import OLDEST_PYTHON, find_jetpack, jetpacks
from vptkit.devices.drivers.sysfs import read_text
from vptkit.devices.probes.clocks import read_clocks
from vptkit.devices.probes.memory import free_memory, swap_free
from vptkit.runtime.backends.install_hints import mend

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vptkit.devices.probes.jetson import Jetson

    State = Literal["ok", "warning", "missing", "unknown"]

__all__ = ["Check", "has_nvidia", "machine_checks", "package_checks"]

_LOW_DISK = 2 << 30  # an engine is about as large as the weights; a build keeps two for a moment
_LOW_MEMORY_MB = 1500  # below that, building a ViT-B's engine is a matter of luck (unverified)
_PYTHON = ".".join(map(str, OLDEST_PYTHON))
_OTHERS = ("cpu", "openvino", "trt-rtx", "test")
# What runs bundles needs none of these.
_PURPOSES = {
    "tune": "vptkit tune",
    "export": "vptkit export",
    "plot": "--plot",
    "gpu": "the state and energy of GPUs in vptkit profile; a Jetson's are read without",
    "demo": "vptkit demo",
}
_GRAPHICS = "0x03"  # PCI class
_NVIDIA = "0x10de"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the doctor's.

    Attributes:
        name: what was looked at.
        state: ok; warning (works, could be better); missing; unknown.
        found: what there is.
        fix: what to type, or None if there is nothing to mend or no command does.
    """

    name: str
    state: State
    found: str
    fix: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As `vptkit doctor --json` writes it."""
        return asdict(self)


def machine_checks(
    machine: dict[str, Any], jetson: Jetson | None, root: Path, folder: Path
) -> Iterator[Check]:
    """Check the machine.

    Args:
        machine: of `detect_machine`.
        jetson: of `detect_jetson`.
        root: where /proc, /sys and /usr are looked for.
        folder: where engines go.
    """
    yield _board(machine, jetson)
    if jetson is not None:
        yield _jetpack(jetson)
    yield _gpu(machine, jetson, root)
    if machine["gpu"] is not None:
        yield _cuda(machine["gpu"], root)
    if jetson is not None:
        yield _power_mode(jetson)
        yield _clocks(root)
    yield _memory(machine, jetson, root)
    yield _disk(folder)
    yield Check(name="Python", state="ok", found=f"{machine['python']}, {sys.executable}")


def package_checks() -> Iterator[Check]:
    """Check the packages of each extra, and that ONNX Runtime is there once only.

    The extras `cpu`, `openvino` and `trt-rtx` are left out: their libraries are asked themselves.
    """
    wanted: dict[str, list[str]] = {}
    try:
        requirements = importlib.metadata.requires("vptkit") or ()
    except importlib.metadata.PackageNotFoundError:
        requirements = ()
        found_where = "vptkit runs from a folder, it was not installed: its extras are not known"
        yield Check(name="extras", state="unknown", found=found_where)
    for line in requirements:
        found = re.match(r"([\w.-]+)[^;]*;.*extra == ['\"]([\w-]+)['\"]", line)
        if found and found.group(1) != "vptkit" and found.group(2) not in _OTHERS:
            wanted.setdefault(found.group(2), []).append(found.group(1))
    for extra, names in wanted.items():
        yield _extra(extra, names)
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    if len(both) == 2:
        yield Check(
            name="onnxruntime twice",
            state="warning",
            found="onnxruntime and onnxruntime-gpu overwrote each other's files",
            fix="pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them",
        )


def _extra(extra: str, names: list[str]) -> Check:
    versions = {name: _version(name) for name in names}
    absent = [name for name, version in versions.items() if version is None]
    if absent:
        fix = f'pip install "vptkit[{extra}]"'
        found = f"no {', '.join(absent)}; only for {_PURPOSES.get(extra, extra)}"
        return Check(name=f"extra {extra}", state="missing", found=found, fix=fix)
    text = ", ".join(f"{name} {version}" for name, version in versions.items())
    return Check(name=f"extra {extra}", state="ok", found=text)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _board(machine: dict[str, Any], jetson: Jetson | None) -> Check:
    name = machine["board"] or machine["cpu"] or machine["arch"]
    part = jetson.part if jetson is not None else None
    key = machine["device"]
    features = None if machine["board"] else " ".join(machine["cpu_features"] or ())
    found = ", ".join(filter(None, (name, part, key and f"known as {key}", features)))
    if jetson is not None and part is None:
        return Check(name="board", state="unknown", found=f"{found}. {'; '.join(jetson.notes)}")
    return Check(name="board", state="ok", found=found)


def _jetpack(jetson: Jetson) -> Check:
    if jetson.jetpack is None:
        reasons = [note for note in jetson.notes if note.startswith(("L4T", "JetPack"))]
        return Check(name="JetPack", state="unknown", found="; ".join(reasons))
    found = f"{jetson.jetpack} (L4T {jetson.l4t})"
    row = find_jetpack(jetson.jetpack)
    if row is None:
        return Check(
            name="JetPack", state="unknown", found=f"{found}: what it brings is not known here"
        )
    if row.runs_vptkit:
        return Check(name="JetPack", state="ok", found=found)
    python = row.parts["python"].value
    found += f": its TensorRT is for its Python {python}, and vptkit needs {_PYTHON} or newer"
    newer = [r.first for r in jetpacks() if r.runs_vptkit and jetson.soc in r.socs]
    if not newer:
        return Check(name="JetPack", state="warning", found=f"{found}. None is for this module")
    return Check(
        name="JetPack", state="warning", found=found, fix=f"flash JetPack {newer[0]} or newer"
    )


def _gpu(machine: dict[str, Any], jetson: Jetson | None, root: Path) -> Check:
    gpu = machine["gpu"]
    if gpu is not None:
        version = re.search(
            r"Kernel Module.*?\s(\d+\.[\d.]+)",
            read_text(root / "proc/driver/nvidia/version") or "",
        )
        found = f"{gpu['name']}, compute capability {gpu['capability']}, "
        found += f"{gpu['memory_bytes'] / 2**30:.1f} GiB"
        if version is not None:
            found += f", driver {version.group(1)}"
        return Check(name="GPU", state="ok", found=found)
    contained = jetson is not None and (root / ".dockerenv").exists()
    if contained or list(root.glob("dev/nvidia[0-9]*")):
        fix = "start the container with access to the GPU (docker run --runtime nvidia --gpus all)"
        return Check(
            name="GPU", state="missing", found="a device, but no driver library for it", fix=fix
        )
    if jetson is not None or has_nvidia(root):
        fix = mend("driver", jetson=jetson is not None)
        return Check(name="GPU", state="missing", found="a GPU, but no driver for it", fix=fix)
    return Check(name="GPU", state="ok", found="none of NVIDIA's: the processor does the work")


def has_nvidia(root: Path) -> bool:
    """Whether there is a graphics card of NVIDIA's, with a driver or without; not for Jetson."""
    return any(root.glob("dev/nvidia[0-9]*")) or any(
        read_text(device / "vendor") == _NVIDIA
        and (read_text(device / "class") or "").startswith(_GRAPHICS)
        for device in root.glob("sys/bus/pci/devices/*")
    )


def _cuda(gpu: dict[str, Any], root: Path) -> Check:
    toolkit = re.search(
        r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"([\d.]+)"',
        read_text(root / "usr/local/cuda/version.json") or "",
    )
    kit = f"toolkit {toolkit.group(1)}" if toolkit else "no toolkit (none is needed)"
    return Check(name="CUDA", state="ok", found=f"{gpu['driver']} by the driver, {kit}")


def _power_mode(jetson: Jetson) -> Check:
    modes = jetson.power
    if modes is None or modes.mode is None:
        reasons = [note for note in jetson.notes if note.startswith("power mode")]
        return Check(name="power mode", state="unknown", found="; ".join(reasons))
    fastest = modes.fastest
    if fastest is None or fastest.name == modes.mode.name:
        return Check(name="power mode", state="ok", found=f"{modes.mode.name}, the fastest")
    return Check(
        name="power mode",
        state="warning",
        found=f"{modes.mode.name}; the fastest is {fastest.name}",
        fix=f"sudo nvpmodel -m {fastest.id}",
    )


def _clocks(root: Path) -> Check:
    pinned = {name: clock["pinned"] for name, clock in read_clocks(root).items()}
    known = {name: value for name, value in pinned.items() if value is not None}
    if not known:
        return Check(name="clocks", state="unknown", found="cannot be read here")
    free = [name for name, value in known.items() if not value]
    if not free:
        return Check(name="clocks", state="ok", found=f"pinned: {', '.join(known)}")
    return Check(
        name="clocks",
        state="warning",
        found=f"not pinned: {', '.join(free)}. Latencies will vary",
        fix="sudo jetson_clocks (until the next start)",
    )


def _memory(machine: dict[str, Any], jetson: Jetson | None, root: Path) -> Check:
    free, swap = free_memory(root), swap_free(root) >> 20
    if free is None:
        return Check(name="memory", state="unknown", found="/proc/meminfo does not tell")
    free >>= 20
    found = f"{free} of {machine['memory_mb']} MB free, {swap} MB of swap free"
    if free >= _LOW_MEMORY_MB:
        return Check(name="memory", state="ok", found=found)
    fix = "end other programs"
    if jetson is not None:
        fix = "sudo systemctl isolate multi-user.target (ends the desktop until the next start)"
    return Check(name="memory", state="warning", found=f"{found}: little for a build", fix=fix)


def _disk(folder: Path) -> Check:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check(name="disk", state="unknown", found=f"{folder}: {error.strerror}")
    found = f"{free / 2**30:.1f} GiB free for engines in {folder}"
    if free >= _LOW_DISK:
        return Check(name="disk", state="ok", found=found)
    fix = "make room, or set VPTKIT_CACHE to a folder on a larger disk"
    return Check(name="disk", state="warning", found=found, fix=fix)
