"""How much memory a build and a session will take, before either starts.

Weights and activations come from the manifest (`export.analysis.memory_estimate`); the rest was measured
with TensorRT-RTX 1.7.1 on a CPU (builds for SM86, 50 deep prompts):

                    weights   peak memory of the building process, MiB
ViT-Ti  fp16        11 MiB    373
ViT-B   fp16       165 MiB    836
ViT-B   fp32       331 MiB   1343

that is 340 MiB and three times the weights (the graph, the library's copy, the plan). Its activation
memory was what the manifest says and 8 MiB; with a free batch up to 15 % more, in a bank 32 % more
(ViT-B; of a ViT-Ti 87 %, some 13 MB). Unverified: what a GPU adds, the library's kernels and the
CUDA context (here 400 MiB), and TensorRT's own appetite.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.devices.drivers.cuda import open_device
from vptkit.devices.probes.memory import free_memory
from vptkit.errors import TargetError
from vptkit.formats.bank_tables import BankShape

if TYPE_CHECKING:
    from vptkit.devices.boards.catalog import Board
    from vptkit.devices.drivers.cuda import Gpu
    from vptkit.formats.bundle import Bundle

__all__ = [
    "Forecast",
    "Room",
    "forecast",
    "free_on",
    "require_possible",
    "room_ahead",
    "room_here",
    "room_of",
    "table_rows",
]

MIB = 2**20
_BUILDER = 340 * MIB
_COPIES = 3
_EXTRA = 8 * MIB  # that every engine holds beyond its activations
_FREE_BATCH, _FREE_BANK = 1.15, 1.35  # what an engine keeps where sizes are not fixed
_CONTEXT = 400 * MIB  # unverified: CUDA context and kernels
_WIDTHS = {"uint8": 1, "float16": 2, "bfloat16": 2, "float32": 4, "int32": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The memory there is, in bytes; None if it is not known.

    Attributes:
        device: the GPU's that is free, or all of it; `source` says which.
        host: the processor's that is free.
        shared: both are the same memory (a Jetson's).
        source: whose memory, in words.
        ahead: the engine is built here for a GPU elsewhere; `host` is this machine's.
    """

    device: int | None
    host: int | None
    shared: bool
    source: str
    ahead: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What is needed, in bytes.

    Attributes:
        weights, activations, buffers: of the engine for its largest batch; buffers are inputs,
            outputs and a bank's tables.
        workspace: limit for the scratch memory of kernels.
        builder: what the building process holds in host memory.
        context: CUDA's own.
        room: what there is.
        batch: the largest.
    """

    weights: int
    activations: int
    buffers: int
    workspace: int
    builder: int
    context: int
    room: Room
    batch: int

    @property
    def session(self) -> int:
        """Device memory of a session."""
        return self.weights + self.activations + self.buffers + self.context

    @property
    def build_device(self) -> int:
        """Device memory of a build; none is touched ahead of time."""
        if self.room.ahead:
            return 0
        return self.weights + self.activations + self.workspace + self.context

    @property
    def tight(self) -> list[str]:
        """What does not fit, in words."""
        room, found = self.room, []
        wants = [("a session", self.session, room.device)]
        if room.shared and not room.ahead:
            wants.append(("the build", self.build_device + self.builder, room.device))
        else:
            wants.append(("the build (GPU)", self.build_device, room.device))
            wants.append(("the build (host)", self.builder, room.host))
        for name, need, there in wants:
            if there is not None and need > there:
                owner = "this machine" if name == "the build (host)" else room.source
                found.append(f"{name} needs about {_mib(need)}, {owner} has {_mib(there)}")
        return found

    @property
    def hopeless(self) -> bool:
        """Not even the weights fit."""
        return self.room.device is not None and self.weights > self.room.device

    def to_json(self) -> dict[str, Any]:
        """As `vptkit build --forecast --json` prints it."""
        needs = {name: getattr(self, name) for name in ("session", "build_device")}
        return {**asdict(self), **needs, "fits": not self.tight, "tight": self.tight}

    def advice(self) -> str:
        """What to do where it does not fit."""
        ways = [f"a smaller largest batch than {self.batch} (--batch)"] if self.batch > 1 else []
        ways.append(f"less workspace than {_mib(self.workspace)} (--workspace)")
        if self.room.shared and not self.room.ahead:
            ways.append("no desktop and no other programs, and swap for the build")
        return f"{'; '.join(self.tight)}. What helps: {', '.join(ways)}."

    def line(self) -> str:
        """What a build will take, and what there is."""
        room, owner = self.room, self.room.source
        there = _known(room.device)
        if room.shared and not room.ahead:
            needs = f"the build takes about {_mib(self.build_device + self.builder)}"
        else:
            needs = f"the build takes about {_mib(self.builder)} of this machine's memory"
            there += f", this machine {_known(room.host)} free"
            if not room.ahead:
                needs += f" and {_mib(self.build_device)} of the GPU's"
        return f"{needs}, a session {_mib(self.session)}; {owner} has {there}"

    def text(self) -> str:
        """A few lines."""
        room = self.room
        lines = [
            f"weights      {_mib(self.weights)}",
            f"activations  {_mib(self.activations)} (batch {self.batch})",
            f"buffers      {_mib(self.buffers)}",
            f"workspace    {_mib(self.workspace)} at most",
            f"builder      {_mib(self.builder)} of host memory",
            f"session      {_mib(self.session)} in all",
            f"there is     {_known(room.device)} ({room.source})",
        ]
        if self.tight:
            lines.append(f"does not fit: {self.advice()}")
        return "\n".join(lines)


def forecast(
    bundle: Bundle, *, batch: int, adapters: int, workspace_mb: int, room: Room
) -> Forecast:
    """Foretell.

    Args:
        bundle: with "memory" in its manifest.
        batch: the largest.
        adapters: of a bank, the most.
        workspace_mb: limit of the builder, MiB.
        room: what there is.
    """
    memory = bundle.manifest["memory"]
    each = memory["activation_bytes"]
    activations = each["fixed"] + each["per_image"] * batch
    if bundle.layout == "bank":
        activations = math.ceil(activations * _FREE_BANK)
    elif bundle.batch is None:
        activations = math.ceil(activations * _FREE_BATCH)
    weights = int(memory["weights_bytes"])
    return Forecast(
        weights=weights,
        activations=activations + _EXTRA,
        buffers=_buffers(bundle, batch, adapters),
        workspace=workspace_mb * MIB,
        builder=_BUILDER + _COPIES * weights,
        context=_CONTEXT,
        room=room,
        batch=batch,
    )


def require_possible(found: Forecast, *, force: bool) -> None:
    """Refuse what cannot be.

    Raises:
        TargetError: not even the weights fit, and force is off.
    """
    if found.hopeless and not force:
        raise TargetError(
            f"the weights alone take {_mib(found.weights)}, {found.room.source} has "
            f"{_mib(found.room.device or 0)}. Export a smaller backbone or a lower precision "
            "(--precision), or pass --force to try."
        )


def free_on(gpu: Gpu) -> int | None:
    """Free bytes of a GPU that has memory of its own, or None where that is not known.

    A CUDA context is opened for it, which takes some of them as long as the process lives.
    """
    if gpu.integrated:
        return None
    try:
        return open_device(gpu).memory()[0]
    except TargetError:
        return None


def room_here(gpu: Gpu | None, root: Path = Path("/"), *, free: int | None = None) -> Room:
    """The memory of this machine.

    Args:
        gpu: None for a machine without one.
        root: where /proc is looked for.
        free: of `free_on`.
    """
    host = free_memory(root)
    if gpu is None:
        return Room(device=None, host=host, shared=False, source="this machine")
    if gpu.integrated:
        return Room(device=host, host=host, shared=True, source=f"{gpu.name} (free now)")
    if free is None:
        source = f"{gpu.name} (all of its memory; what is free is not known)"
        return Room(device=gpu.memory_bytes, host=host, shared=False, source=source)
    return Room(device=free, host=host, shared=False, source=f"{gpu.name} (free now)")


def room_of(board: Board) -> Room:
    """The memory of a board that is not here: all of it, though its system takes a share."""
    size = board.memory_bytes
    host = size if board.integrated else None
    source = f"{board.name} (all of its memory)"
    return Room(device=size, host=host, shared=board.integrated, source=source)


def room_ahead(board: Board | None, root: Path = Path("/")) -> Room:
    """For a build ahead of time: this machine's memory, and the board's if it is known."""
    host = free_memory(root)
    if board is None:
        return Room(device=None, host=host, shared=False, source="the target", ahead=True)
    return replace(room_of(board), host=host, ahead=True)


def table_rows(bundle: Bundle) -> dict[str, int]:
    """Of a bank: table → rows that one adapter takes in it."""
    if bundle.layout != "bank":
        return {}
    shape = BankShape.of_manifest(bundle.manifest, bundle.spec)
    return {name: rows for name, (rows, _) in shape.rows().items()}


def _buffers(bundle: Bundle, batch: int, adapters: int) -> int:
    rows = table_rows(bundle)
    total = 0
    fed = (value for value in bundle.manifest["inputs"] if value["name"] in bundle.fed)
    for value in (*fed, *bundle.manifest["outputs"]):
        first = rows[value["name"]] * adapters if value["name"] in rows else batch
        sizes = [first, *value["shape"][1:]]
        total += math.prod(int(size) for size in sizes) * _WIDTHS.get(value["dtype"], 4)
    return total


def _known(size: int | None) -> str:
    return "an unknown amount" if size is None else _mib(size)


def _mib(size: int) -> str:
    return f"{size / MIB:.0f} MiB" if size >= MIB else f"{size / MIB:.1f} MiB"
