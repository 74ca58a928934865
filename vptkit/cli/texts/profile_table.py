"""`vptkit profile` as text: one line a row, and what makes rows doubtful below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.shown_text import shown, terminal_width
from vptkit.text_table import columns, milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["profile_cells", "profile_notes", "profile_table"]

_BARE = "backbone (no adapter)"  # as `vptkit.export.bundle.baselines` calls it


def profile_table(document: Mapping[str, Any]) -> str:
    """The rows of `vptkit.runtime.profile.benchmark.profile`.

    Columns of what was not measured, or not asked for, are left out; what a terminal does not hold
    side by side stands below. Then come how each compares with the baseline, and before that what crosses the
    bus, batches that went in portions, what makes rows doubtful, power modes that were skipped, and
    why memory or energy is missing.
    """
    head, cells = profile_cells(document)
    keys = sum(name in _KEYS for name in head)
    table = columns(head, cells, width=terminal_width(), keys=keys)
    return "\n".join([table, *map(shown, profile_notes(document))])  # the table is shown already


def profile_cells(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heading and a row of cells each; columns of what was not measured are left out."""
    rows = document["rows"]
    filled = [column for column in _COLUMNS if column[2](rows)]
    return [c[0] for c in filled], [[c[1](row) for c in filled] for row in rows]


def profile_notes(document: Mapping[str, Any]) -> list[str]:
    """The lines below the table; not shown yet."""
    rows, lines = document["rows"], list[str]()
    if not all(row["settled"] for row in rows):
        lines.append("* not settled when its warm-up ended")
    doubts = [
        (f"batch {row['batch']}, {row.get('power_mode') or ''}".rstrip(", "), doubt)
        for row in rows
        for doubt in row.get("unsteady") or ()
    ]
    lines += _transfers(rows)
    lines += dict.fromkeys(_portions(row) for row in rows if row.get("portions", 1) > 1)
    lines += [f"unsteady: {where}: {doubt}" for where, doubt in dict.fromkeys(doubts)]
    for what, key in (("memory", "memory_mb"), ("energy", "energy")):
        reasons = dict.fromkeys(_at(row, key, "unavailable") for row in rows)
        lines += [f"no {what}: {reason}" for reason in reasons if reason]
    skipped = document.get("sweep", {}).get("skipped", [])
    lines += [f"{entry['name']} was skipped: {entry['reason']}" for entry in skipped]
    return lines + _verdicts(rows)


def _verdicts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """As "flowers: 0.90 × the backbone's time [0.89, 0.91], faster", one for each row that is compared."""
    several = [key for key in ("power_mode", "batch") if _differ(key)(rows)]
    lines = []
    for row in rows:
        if row["ratio"] is None:
            continue
        where = [f"batch {row[key]}" if key == "batch" else str(row.get(key)) for key in several]
        lines.append(f"{', '.join([row['name'], *where])}: {_against(row['ratio'])}")
    return lines


def _transfers(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line on what runs move between host and device, none where nothing does."""
    names: dict[str, dict[str, None]] = {}
    for row in rows:
        names.setdefault(row.get("transfers", "none"), {})[row["name"]] = None
    if not names.keys() - {"none"}:
        return []
    texts = names if len(names) == 1 else [f"{t} ({', '.join(n)})" for t, n in names.items()]
    return [f"transfers: {'; '.join(texts)}"]


def _portions(row: Mapping[str, Any]) -> str:
    return (
        f"in portions: {row['name']}, batch {row['batch']}: went through its engine "
        f"{row['portions']} times, as the engine takes less at once (vptkit build --batch)"
    )


def _always(rows: Sequence[Mapping[str, Any]]) -> bool:
    return True


def _some(*path: str) -> Callable[[Sequence[Mapping[str, Any]]], bool]:
    """Whether any row has a value there."""
    return lambda rows: any(_at(row, *path) is not None for row in rows)


def _differ(key: str) -> Callable[[Sequence[Mapping[str, Any]]], bool]:
    """Whether not all rows have the same there."""
    return lambda rows: len({row.get(key) for row in rows}) > 1


def _at(row: Mapping[str, Any], *path: str) -> Any:
    """row[a][b]…, or None where something on the way is missing."""
    found: Any = row
    for key in path:
        found = found.get(key) if found else None
    return found


def _number(form: str, *path: str) -> Callable[[Mapping[str, Any]], str]:
    return _shown(lambda value: format(value, form), *path)


def _time(*path: str) -> Callable[[Mapping[str, Any]], str]:
    return _shown(milliseconds, *path)


def _shown(render: Callable[[float], str], *path: str) -> Callable[[Mapping[str, Any]], str]:
    def text(row: Mapping[str, Any]) -> str:
        value = _at(row, *path)
        return "-" if value is None else render(value)

    return text


def _calls(row: Mapping[str, Any]) -> str:
    return str(row["count"]) + ("" if row["settled"] else "*")


# Columns that tell rows apart
_KEYS = ("name", "power mode", "precision", "batch")
# Header, a row's cell, whether the column is shown
_COLUMNS: tuple[
    tuple[str, Callable[[Mapping[str, Any]], str], Callable[[Sequence[Mapping[str, Any]]], bool]],
    ...,
] = (
    ("name", lambda row: row["name"], _always),
    ("power mode", lambda row: row.get("power_mode") or "-", _some("power_mode")),
    ("precision", lambda row: str(row.get("precision")), _differ("precision")),
    ("batch", lambda row: str(row["batch"]), _always),
    ("p50 ms", _time("ms", "p50"), _always),
    ("p90 ms", _time("ms", "p90"), _always),
    ("p99 ms", _time("ms", "p99"), _always),
    ("enqueue", _time("times", "enqueue", "p50"), _some("times", "enqueue")),
    ("gpu", _time("times", "gpu", "p50"), _some("times", "gpu")),
    ("host", _time("times", "host", "p50"), _some("times", "host")),
    ("images/s", _number(".1f", "images_per_s"), _always),
    (
        "streams",
        lambda row: (
            f"{_number('.1f', 'streams', 'images_per_s')(row)} ({row['streams']['count']})"
            if row.get("streams")
            else "-"
        ),
        _some("streams"),
    ),
    (
        "J/image",
        _number("#.3g", "energy", "joules_per_image"),
        _some("energy", "joules_per_image"),
    ),
    ("W", _number(".1f", "energy", "watts"), _some("energy", "watts")),
    ("idle W", _number(".1f", "energy", "idle_watts"), _some("energy", "idle_watts")),
    ("MiB", _number(".0f", "memory_mb", "increase"), _some("memory_mb", "increase")),
    ("GPU MiB", _number(".0f", "memory_mb", "device"), _some("memory_mb", "device")),
    ("calls", _calls, _always),
)


def _against(ratio: Mapping[str, Any]) -> str:
    digits = 3 if min(abs(1 - ratio[key]) for key in ("value", "low", "high")) < 0.01 else 2
    value, low, high = (f"{ratio[key]:.{digits}f}" for key in ("value", "low", "high"))
    to = "the backbone" if ratio["to"] == _BARE else ratio["to"]
    return f"{value} × {to}'s time [{low}, {high}], {ratio['verdict']}"
