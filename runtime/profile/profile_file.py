"""A profile that was saved (`vptkit profile --json`), read back: checked whole, as it may be a stranger's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.errors import DataError
from vptkit.regular_files import read_regular
from vptkit.schema import (
    abridged,
    anything,
    choice,
    flag,
    integer,
    list_of,
    mapping,
    null_or,
    number,
    record,
    require,
    text,
)
from vptkit.strict_json import parse_json

from .benchmark import FORMAT

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_profile"]

_BYTES, _ROWS = 64 << 20, 2000
_NOTES = anything(values=100_000, depth=16, letters=100_000)
_WORD = text(1000)
_MS = number(0, 1e9)
_FIGURE = number(-1e18, 1e18)
_TIMES = record({"p50": _MS, "p90": _MS, "p99": _MS, "mean": _MS})
_RATIO = record(
    {
        "to": _WORD,
        "value": number(0, 1e9),
        "low": number(0, 1e9),
        "high": number(0, 1e9),
        "verdict": choice("faster", "slower", "no measurable difference"),
    }
)
_ROW = record(
    {
        "name": _WORD,
        "kind": choice("adapter", "baseline"),
        "backend": _WORD,
        "batch": integer(1, 1 << 20),
        "ms": _TIMES,
        "count": integer(1, 1 << 50),
        "settled": flag(),
        "ratio": null_or(_RATIO),
    },
    {
        "distribution": list_of(list_of(number(0, 1e9), 2, least=2), 1000, least=2),
        "graph_sha256": _WORD,
        "images_per_s": null_or(_FIGURE),
        "portions": integer(1, 1 << 20),
        "power_mode": null_or(_WORD),
        "precision": _WORD,
        "transfers": _WORD,
        "unsteady": list_of(_WORD, 1000),
        "memory_mb": null_or(
            record(
                {},
                {
                    "peak": null_or(_FIGURE),
                    "increase": null_or(_FIGURE),
                    "device": null_or(_FIGURE),
                    "unavailable": null_or(_WORD),
                },
                others=_NOTES,
            )
        ),
        "energy": null_or(
            record(
                {},
                {
                    "joules_per_image": null_or(_FIGURE),
                    "watts": null_or(_FIGURE),
                    "idle_watts": null_or(_FIGURE),
                    "source": _WORD,
                    "unavailable": null_or(_WORD),
                },
                others=_NOTES,
            )
        ),
        "streams": null_or(
            record({"images_per_s": _FIGURE, "count": integer(1, 1 << 20)}, others=_NOTES)
        ),
        "times": mapping(_WORD, null_or(_TIMES), 10),
    },
    others=_NOTES,
)
_PROFILE = record(
    {
        "format": choice(FORMAT),
        "rows": list_of(_ROW, _ROWS, least=1),
        "machine": record(
            {
                "arch": _WORD,
                "session_threads": integer(1, 1 << 20),
                "load": number(0, 1e9),
                "versions": mapping(_WORD, _WORD, 100),
            },
            {"cpu": null_or(_WORD), "gpu": null_or(record({"name": _WORD}, others=_NOTES))},
            others=_NOTES,
        ),
    },
    {
        "sweep": record(
            {"skipped": list_of(record({"name": _WORD, "reason": _WORD}, others=_NOTES), 100)},
            others=_NOTES,
        )
    },
    others=_NOTES,
)


def read_profile(path: Path) -> dict[str, Any]:
    """A document as `benchmark.profile` returns it.

    Args:
        path: what `vptkit profile --json` printed, as a file.

    Raises:
        DataError: no such file, no JSON, or not a profile; the field is named.
    """
    document = parse_json(read_regular(path, DataError, limit=_BYTES), path, DataError)
    if document.get("format") != FORMAT:
        raise DataError(
            f"{path}: its format is {abridged(document.get('format'))}, expected {FORMAT!r}: what "
            "vptkit profile --json prints"
        )
    require(document, _PROFILE, path, DataError)
    _require_references(document, path)
    document["machine"].setdefault("cpu", None)
    return document


def _require_references(document: dict[str, Any], path: Path) -> None:
    """Of each batch and power mode one row is what the others are compared with."""
    groups: dict[Any, list[Any]] = {}
    for row in document["rows"]:
        groups.setdefault((row["batch"], row.get("power_mode")), []).append(row["ratio"])
    for (batch, _), ratios in groups.items():
        if len(ratios) > 1 and None not in ratios:
            raise DataError(
                f"{path}: rows of batch {batch} are all compared with another, expected one that is "
                "not. Save it again with vptkit profile --json"
            )
