"""What each board can do: one TOML a board, each figure with its source, and which one this is.

    key = "orin-nano-8gb"                       orin-nano-8gb.toml
    board(key).value("fp16_tflops")             16.7
    board(key).floor_ms(macs=4.6e9, ...)        no run can be faster
    match({"part": "p3767-0003", ...}).key      "orin-nano-8gb"

Peaks are dense, of the tensor cores where the GPU has them. How the files are read: `datasheet`. What
TensorRT a board can have: `jetpacks`. To add a board, copy the file of one that is like it.
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from vptkit.errors import VptkitError

from .board import PRECISIONS, Board, Mode
from .datasheet import FOLDER, Figure, open_table
from .jetpacks import SOCS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .datasheet import Table

__all__ = ["PRECISIONS", "Board", "Mode", "board", "boards", "boards_with", "match"]

# Figure → the range in which one is believed. The unit stands in the name; a gb of memory is 2^30
# bytes, all else counts in powers of ten. clock_mhz is the clock that the peaks are stated for.
_RANGES = {
    "sms": (1, 256),
    "cuda_cores": (64, 32768),
    "tensor_cores": (0, 1024),
    "clock_mhz": (300, 4000),
    "emc_mhz": (800, 6000),
    "memory_gb": (1, 512),
    "bandwidth_gbs": (10, 20000),
    "fp32_tflops": (0.1, 200),
    "fp16_tflops": (0.1, 10000),
    "int8_tops": (1, 10000),
    "fp8_tflops": (1, 10000),
    "marketing_tops": (1, 10000),
    "dla": (0, 4),
    "power_w": (5, 2000),
}
_COMMON = {"sms", "cuda_cores", "tensor_cores", "clock_mhz", "memory_gb", "bandwidth_gbs"}
_COMMON |= {"fp32_tflops", "fp16_tflops", "power_w"}
_REQUIRED = {"jetson": _COMMON | {"emc_mhz", "dla"}, "gpu": _COMMON, "cpu": set()}
_COUNTS = {"sms", "cuda_cores", "tensor_cores", "dla"}
_CONFIGURATIONS = ("normal", "super")


@cache
def boards(folder: Path = FOLDER) -> dict[str, Board]:
    """All boards by key: Jetsons, GPUs, processors, each in the order of their names.

    Args:
        folder: where the TOML files lie; tests pass one of their own.

    Raises:
        VptkitError: a file breaks the schema; the message names the file and the key.
    """
    names = {path.stem for path in folder.glob("*.toml")} - {"sources", "jetpacks", "latencies"}
    loaded = [_board(name, folder) for name in names]
    return {entry.key: entry for entry in sorted(loaded, key=_order)}


def board(key: str) -> Board:
    """One board by its key.

    Raises:
        VptkitError: there is none; the message names those with the words, else those spelt alike.
    """
    known = boards()
    if key in known:
        return known[key]
    having = [entry.key for entry in boards_with(key)]
    near = having or difflib.get_close_matches(key.lower(), known, n=4, cutoff=0.5)
    *others, last = near or [""]
    hint = (
        f"did you mean {' or '.join(filter(None, [', '.join(others), last]))}?"
        if near
        else "vptkit devices list prints them all"
    )
    raise VptkitError(f"no device {key!r}: {hint}")


def boards_with(word: str) -> list[Board]:
    """The board of that key; else all whose key or name has the words, in any case and order."""
    known = boards()
    if word in known:
        return [known[word]]
    words = re.split(r"[\s_-]+", word.strip().lower())
    return [
        entry
        for entry in known.values()
        if all(part in f"{entry.key} {entry.name}".lower() for part in words if part) and any(words)
    ]


def match(machine: Mapping[str, Any], known: Mapping[str, Board] | None = None) -> Board | None:
    """The board that a machine is; None if none fits, or if several fit alike: no guess.

    Args:
        machine: what was detected; what is unknown is None or left out:
            `part`: part number of a Jetson's module, such as "p3767-0003". It decides alone, and a
            Jetson is known by nothing else: CUDA calls eight modules "Orin".
            `gpu`: name that CUDA gives the GPU, such as "NVIDIA H200"; exact.
            `cc`: its compute capability, such as "8.7".
            `memory_mb`: MiB of the GPU, or of the machine where both share it. It tells boards of
            one part number apart, and a slice of a GPU from a whole one.
            `arch`: such as "x86_64"; for machines without either.
        known: the boards to choose from.
    """
    candidates = (boards() if known is None else known).values()
    found = [entry for entry in candidates if _is(entry, machine)]
    return found[0] if len(found) == 1 else None


def _is(entry: Board, machine: Mapping[str, Any]) -> bool:
    """Whether a board has all that a machine shows."""
    part, gpu, cc = (machine.get(name) for name in ("part", "gpu", "cc"))
    if part is not None:
        named = part in entry.parts
    elif gpu is not None:
        named = gpu in entry.gpus
    else:
        named = entry.kind == "cpu" and machine.get("arch") == entry.arch
    same_cc = cc is None or entry.cc is None or cc == entry.cc.value
    return named and same_cc and _memory_fits(entry, machine.get("memory_mb"))


def _memory_fits(entry: Board, memory_mb: float | None) -> bool:
    """Systems and GPUs show a little less than there is: firmware and error codes take it.

    The least share seen is 0.88, in a deviceQuery on an Orin NX 16GB.
    """
    size = entry.value("memory_gb")
    return memory_mb is None or size is None or 0.75 <= memory_mb / (size * 1024) <= 1.03


def _order(entry: Board) -> tuple[int, list[str]]:
    """Jetsons first; 8gb before 16gb."""
    words = [word.zfill(5) if word.isdigit() else word for word in re.split(r"(\d+)", entry.key)]
    return list(_REQUIRED).index(entry.kind), words


def _board(key: str, folder: Path) -> Board:
    table = open_table(key, folder)
    kind = table.choice("kind", tuple(_REQUIRED))
    matching = table.table("match")
    values = table.table("figures")
    cc = values.phrase("cc") if kind != "cpu" else None
    if cc is not None and re.fullmatch(r"\d{1,2}\.\d", str(cc.value)) is None:
        raise values.wrong("cc", f"is {cc.value!r}, expected a compute capability such as 8.7")
    figures = _figures(values, kind)
    entry = Board(
        key=key,
        name=table.text("name"),
        kind=kind,
        soc=table.choice("soc", SOCS) if kind == "jetson" else None,
        integrated=table.flag("integrated"),
        precisions=_precisions(table),
        parts=matching.texts("parts") if kind == "jetson" else (),
        gpus=matching.texts("gpus") if kind == "gpu" else (),
        arch=matching.text("arch") if kind == "cpu" else None,
        match_source=matching.source(),
        cc=cc,
        figures=figures,
        modes=_modes(table.table("modes"), figures)
        if kind == "jetson" and "modes" in table
        else (),
        notes=table.phrases("notes"),
    )
    matching.end()
    table.end()
    return entry


def _figures(table: Table, kind: str) -> dict[str, Figure]:
    missing = sorted(_REQUIRED[kind] - set(table.names()))
    if missing:
        raise table.wrong(missing[0], f"is missing: a {kind} has {', '.join(missing)} too")
    figures = {}
    for name, (low, high) in _RANGES.items():
        if name in table:
            figures[name] = figure = table.figure(name, low, high)
            if name in _COUNTS and not isinstance(figure.value, int):
                raise table.wrong(name, f"is {figure.value}, expected a whole number")
    table.end()
    return figures


def _precisions(table: Table) -> tuple[str, ...]:
    names = table.texts("precisions")
    if not names or not set(names) <= set(PRECISIONS):
        raise table.wrong(
            "precisions", f"is {list(names)}, expected some of {', '.join(PRECISIONS)}"
        )
    return names


def _modes(table: Table, figures: Mapping[str, Figure]) -> tuple[Mode, ...]:
    """Power modes; a clock that a mode does not cap is the board's."""
    modes = []
    clock, memory, sms = (float(figures[n].value) for n in ("clock_mhz", "emc_mhz", "sms"))
    for configuration in _CONFIGURATIONS:
        if configuration not in table:
            continue
        for entry in table.tables(configuration):
            mode = Mode(
                configuration=configuration,
                id=entry.number("id", 0, 99),
                name=entry.text("name"),
                default=entry.flag("default") if "default" in entry else False,
                sms=entry.number("sms", 1, sms),
                gpu_mhz=entry.number("gpu_mhz", 50, clock) if "gpu_mhz" in entry else clock,
                emc_mhz=entry.number("emc_mhz", 200, memory) if "emc_mhz" in entry else memory,
                source=entry.source(),
            )
            entry.end()
            modes.append(mode)
    table.end()
    return tuple(modes)
