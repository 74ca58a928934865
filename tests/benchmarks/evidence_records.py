"""The records of `evidence.py`: a file of JSON lines, and what is asked of it."""

from __future__ import annotations

import json
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from .evidence_cells import METHODS, ONCE, SETS, Cell

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

Row = dict[str, Any]
_CHANCE = 0.03


def cell_of(row: Row) -> Cell:
    """Of which cell a record is."""
    return Cell(**{name: row[name] for name in Cell.__dataclass_fields__})


def read_records(path: Path) -> list[Row]:
    """All records of a file: those of a later line replace earlier ones of the same cell.

    What is none, as a line that was cut off when the script was killed, is passed over.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [row for row in map(_parsed, lines) if row is not None]
    if len(rows) < len(lines):
        print(f"{path}: {len(lines) - len(rows)} of {len(lines)} lines are no records of this grid")
    found = {cell_of(row): row for row in rows}
    return list(found.values())


def _parsed(line: str) -> Row | None:
    try:
        row = json.loads(line)
        cell_of(row)
    except (ValueError, KeyError, TypeError):
        return None
    return row


def append_record(path: Path, row: Row) -> None:
    """One line, whole; on a line of its own, were the last one cut off."""
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            text = text if file.read(1) == b"\n" else "\n" + text
        file.write(text.encode())


class Records:
    """Trainings that came to an end, of one number of epochs."""

    def __init__(self, rows: list[Row], epochs: int) -> None:
        """Sort them."""
        mine = [row for row in rows if row["epochs"] == epochs]
        self.epochs = epochs
        self.failed = [row for row in mine if "failed" in row]
        self.rows = [row for row in mine if "failed" not in row]
        self._found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in sorted(self.rows, key=lambda row: row["seed"]):
            self._found[_place(row)].append(row)

    def of(self, recipe: str, backbone: str, shots: int, method: str, data: str) -> list[Row]:
        """The records of all seeds; what is the same in both recipes counts for either."""
        recipe = "vptkit" if method in ONCE else recipe
        return self._found.get((recipe, backbone, shots, method, data), [])

    def by_cell(self, recipe: str, method: str) -> dict[tuple[Any, ...], Row]:
        """(backbone, set, shots, seed) → record, of a method."""
        recipe = "vptkit" if method in ONCE else recipe
        return {
            (row["backbone"], row["data"], row["shots"], row["seed"]): row
            for row in self.rows
            if (row["recipe"], row["method"]) == (recipe, method)
        }

    def tables(self) -> list[tuple[str, int]]:
        """(backbone, shots) of which there are records: all images first, then many to few."""
        found = {(row["backbone"], row["shots"]) for row in self.rows}
        return sorted(found, key=lambda pair: (pair[0], -pair[1] if pair[1] else -(10**9)))

    def sets(self, backbone: str, shots: int) -> list[str]:
        """Of which there are records, in order."""
        there = {r["data"] for r in self.rows if (r["backbone"], r["shots"]) == (backbone, shots)}
        return [name for name in SETS if name in there]

    def mean(
        self, recipe: str, backbone: str, shots: int, method: str, key: str = "test_top1"
    ) -> float | None:
        """Over the seeds, then over all four sets; None if a set is missing."""
        found = [self.of(recipe, backbone, shots, method, data) for data in SETS]
        if not all(found):
            return None
        return float(np.mean([np.mean([row[key] for row in rows]) for rows in found]))


def _place(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("recipe", "backbone", "shots", "method", "data"))


def methods_in(rows: list[Row]) -> list[str]:
    """Of which there are records, in order."""
    there = {row["method"] for row in rows}
    return [name for name in METHODS if name in there]


def right(row: Row, split: str = "test") -> NDArray[np.bool_]:
    """Which images were answered right, bool [images]."""
    counts = row["truth"][split]
    return np.asarray(row["answers"][split]) == np.repeat(np.arange(len(counts)), counts)


def at_chance(row: Row, split: str = "test") -> bool:
    """Within 3 points of 1 / C, or not better than naming the largest class."""
    counts = np.asarray(row["truth"][split])
    top1 = row[f"{split}_top1"]
    near = abs(top1 - 1 / len(counts)) <= _CHANCE + 1e-9
    return bool(near or top1 <= counts.max() / counts.sum() + 1e-9)


def expected_seconds(cell: Cell, rows: list[Row], device: str) -> float | None:
    """Median of the cells that are most like this one; None if there is none.

    Args:
        cell: that might be started.
        rows: records.
        device: "cpu" or "cuda": only records of that kind count.
    """
    alike = [
        row
        for row in rows
        if (row["backbone"], row["epochs"]) == (cell.backbone, cell.epochs)
        and str(row.get("device", device)).startswith(device)
        and "failed" not in row
    ]
    for keys in (("method", "shots", "data"), ("method", "shots"), ("shots",), ()):
        found = [
            row["seconds"] for row in alike if all(row[key] == getattr(cell, key) for key in keys)
        ]
        if found:
            return float(median(found))
    return None
