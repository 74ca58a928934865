"""Results as plain text: columns, and name-value lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.shown_text import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["columns", "fields", "milliseconds"]


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column stands left, the others right. Cells are shown on one line."""
    lines = [[shown(cell) for cell in line] for line in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def fields(document: Mapping[str, Any], *, limit: int | None = None) -> str:
    """One `name  value` line for each entry; nested names get a dot.

    Args:
        document: the entries.
        limit: characters of a value, after which it is cut; none are cut unless given.
    """
    flat: dict[str, str] = {}
    for name, value in document.items():
        entries = value.items() if isinstance(value, dict) and value else ((None, value),)
        for inner, item in entries:
            text = shown(_plain(item))
            key = shown(name if inner is None else f"{name}.{inner}")
            short = limit is None or len(text) <= limit
            flat[key] = text if short else text[: limit - 1] + "…"
    width = max(map(len, flat), default=0)
    return "\n".join(f"{name.ljust(width)}  {text}" for name, text in flat.items())


def milliseconds(value: float) -> str:
    """A time with two decimals, below 1 ms with three."""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value) or "-"
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
