"""Results as plain text: columns, and name-value lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["columns", "fields", "profile_table"]


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column stands left, the others right."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def fields(document: Mapping[str, Any], *, limit: int = 100) -> str:
    """One `name  value` line for each entry; long values are cut, nested names get a dot."""
    flat: dict[str, str] = {}
    for name, value in document.items():
        entries = value.items() if isinstance(value, dict) and value else ((None, value),)
        for inner, item in entries:
            text = _plain(item)
            key = name if inner is None else f"{name}.{inner}"
            flat[key] = text if len(text) <= limit else text[: limit - 1] + "…"
    width = max(map(len, flat), default=0)
    return "\n".join(f"{name.ljust(width)}  {text}" for name, text in flat.items())


def profile_table(document: Mapping[str, Any]) -> str:
    """The rows of `vptkit.runtime.profile.profile`."""
    header = ["name", "batch", "p50 ms", "p90 ms", "p99 ms", "images/s", "MiB", "calls", "against"]
    return columns(header, [_profile_row(row) for row in document["rows"]])


def _profile_row(row: Mapping[str, Any]) -> list[str]:
    memory, rate, ratio = row["memory_mb"], row["images_per_s"], row["ratio"]
    return [
        row["name"],
        str(row["batch"]),
        *(f"{row['ms'][key]:.2f}" for key in ("p50", "p90", "p99")),
        "-" if rate is None else f"{rate:.1f}",
        "-" if memory is None else f"{memory['increase']:.0f}",
        str(row["count"]) + ("" if row["settled"] else "*"),
        "-" if ratio is None else _against(ratio),
    ]


def _against(ratio: Mapping[str, Any]) -> str:
    interval = f"{ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"
    return f"{interval} of {ratio['to']}: {ratio['verdict']}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value) or "-"
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
