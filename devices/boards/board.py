"""A board: its figures, its power modes, and how fast a network can be on it at best."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vptkit.errors import TargetError, VptkitError

from .datasheet import Figure, read_sources
from .jetpacks import jetpacks, troubles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .jetpacks import JetPack

__all__ = ["PRECISIONS", "Board", "Mode"]

# Precision → the figure that bounds it. bf16 runs at the rate of fp16 wherever it is supported.
PRECISIONS = {
    "fp32": "fp32_tflops",
    "fp16": "fp16_tflops",
    "bf16": "fp16_tflops",
    "int8": "int8_tops",
    "fp8": "fp8_tflops",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """A power mode of nvpmodel. The same number or name is another mode on another module.

    Attributes:
        configuration: "super" with the device tree of that name (JetPack 6.2 and later).
        id, name: as nvpmodel prints them.
        default: a fresh board boots into it.
        sms: SMs that are not switched off.
        gpu_mhz, emc_mhz: the highest clocks of GPU and memory.
        source: who says so.
    """

    configuration: str
    id: int
    name: str
    default: bool
    sms: int
    gpu_mhz: float
    emc_mhz: float
    source: str

    def to_json(self) -> dict[str, Any]:
        """As `vptkit devices show --json` prints it."""
        return {name: getattr(self, name) for name in Mode.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A board, and what is known of it.

    Attributes:
        key: what `--device` takes.
        name: what people call it.
        kind: jetson, gpu or cpu.
        soc: the chip of a Jetson, such as tegra234.
        integrated: CPU and GPU share the memory.
        precisions: types that pay on this hardware.
        parts: part numbers of a Jetson's module; gpus: CUDA's names of a GPU; arch: of a CPU.
        match_source: who says so.
        cc: compute capability, such as "8.7".
        figures: name → figure; its unit stands in the name.
        modes: power modes.
        notes: what else a deployer should know.
    """

    key: str
    name: str
    kind: str
    soc: str | None
    integrated: bool
    precisions: tuple[str, ...]
    parts: tuple[str, ...]
    gpus: tuple[str, ...]
    arch: str | None
    match_source: str
    cc: Figure | None
    figures: Mapping[str, Figure]
    modes: tuple[Mode, ...]
    notes: tuple[Figure, ...]

    @property
    def memory_bytes(self) -> int | None:
        """Of the GPU, or of the whole board where both share it; None for a CPU."""
        size = self.value("memory_gb")
        return None if size is None else round(size * 2**30)

    @property
    def jetpacks(self) -> tuple[JetPack, ...]:
        """Releases for this board, oldest first; none for what is not a Jetson."""
        return tuple(row for row in jetpacks() if self.soc in row.socs)

    @property
    def runs_vptkit(self) -> bool:
        """False for a Jetson whose every JetPack has too old a Python."""
        return self.kind != "jetson" or any(row.runs_vptkit for row in self.jetpacks)

    def value(self, name: str) -> float | None:
        """A figure without its source; None if none is known."""
        figure = self.figures.get(name)
        return None if figure is None else float(figure.value)

    def floor_ms(
        self,
        *,
        macs: float,
        weight_bytes: float,
        activation_bytes: float,
        precision: str,
        mode: str | None = None,
    ) -> float:
        """The time that no run of a network goes below, in milliseconds (a roofline).

        The larger of two: the multiplications at the peak of the precision, and every byte read
        or written once at the full bandwidth of the memory. Two operations count for one
        multiply-accumulate; sparsity is not counted. Real runs take a multiple of it: small
        batches fill no GPU, and launches cost time. It can be undercut where a cache holds all
        the weights (tens of MB on server GPUs), or where the GPU clocks above `clock_mhz`.

        Args:
            macs: multiply-accumulates of one run.
            weight_bytes: read once in a run.
            activation_bytes: read and written in a run, as far as they leave the chip.
            precision: one of PRECISIONS.
            mode: power mode by name; where two configurations have one of that name, the faster.

        Raises:
            TargetError: the board does not have the precision, or no figures are known.
            VptkitError: no such mode.
        """
        if precision not in self.precisions:
            raise TargetError(
                f"{self.key}: no {precision} on this board, expected {', '.join(self.precisions)}"
            )
        peak, bandwidth = self.value(PRECISIONS[precision]), self.value("bandwidth_gbs")
        if peak is None or bandwidth is None:
            raise TargetError(f"{self.key}: no peak is known for {precision}; measure instead")
        compute, memory = self._share(mode)
        compute_s = 2 * macs / (peak * 1e12 * compute)
        memory_s = (weight_bytes + activation_bytes) / (bandwidth * 1e9 * memory)
        return 1000 * max(compute_s, memory_s)

    def to_json(self) -> dict[str, Any]:
        """Everything, with the sources that are named."""
        known = () if self.cc is None else troubles(cc=str(self.cc.value))
        rows = {name: figure.to_json() for name, figure in self.figures.items()}
        document = {
            "key": self.key,
            "name": self.name,
            "kind": self.kind,
            "soc": self.soc,
            "integrated": self.integrated,
            "precisions": list(self.precisions),
            "match": {
                "parts": list(self.parts),
                "gpus": list(self.gpus),
                "arch": self.arch,
                "source": self.match_source,
            },
            "figures": rows if self.cc is None else {"cc": self.cc.to_json(), **rows},
            "modes": [mode.to_json() for mode in self.modes],
            "jetpacks": [row.to_json() for row in self.jetpacks],
            "troubles": [trouble.to_json() for trouble in known],
            "notes": [{"text": note.value, "source": note.source} for note in self.notes],
        }
        return {**document, "sources": _named_sources(document)}

    def _share(self, mode: str | None) -> tuple[float, float]:
        """What a mode leaves of the peak, and of the bandwidth."""
        if mode is None:
            return 1.0, 1.0
        named = [entry for entry in self.modes if entry.name == mode]
        if not named:
            names = ", ".join(dict.fromkeys(entry.name for entry in self.modes))
            raise VptkitError(
                f"{self.key}: no power mode {mode!r}, expected {names or 'none: no modes are known'}"
            )
        full = float(self.figures["sms"].value) * float(self.figures["clock_mhz"].value)
        compute = max(entry.sms * entry.gpu_mhz for entry in named) / full
        memory = max(entry.emc_mhz for entry in named) / float(self.figures["emc_mhz"].value)
        return compute, memory


def _named_sources(document: Any) -> dict[str, str]:
    """Those of sources.toml that a document names, as sources or inside of them."""
    words: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            words.update(re.findall(r"[\w.-]+", str(value.get("source", ""))))
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(document)
    return {name: text for name, text in read_sources().items() if name in words}
