"""Results as plain text: columns, and name-value lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.shown_text import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["columns", "fields", "milliseconds"]


def columns(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int | None = None,
    keys: int = 1,
) -> str:
    """A table; the first column stands left, the others right. Cells are shown on one line.

    Args:
        header: a heading for each column.
        rows: cells.
        width: characters of a line (`vptkit.shown_text.terminal_width`); a wider table becomes
            several, one below the other. None leaves it as it is.
        keys: the first columns, which tell the rows apart and stand in each of these.
    """
    lines = [[shown(cell) for cell in line] for line in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    parts = _parts(widths, width, min(keys, len(widths)))
    return "\n\n".join(
        "\n".join(_line([(line[i], widths[i], i == 0) for i in part]) for line in lines)
        for part in parts
    )


def _parts(widths: Sequence[int], width: int | None, keys: int) -> list[list[int]]:
    """Which columns stand side by side: the keys, and as many others as fit, at least one."""
    first = list(range(keys))
    parts = [list(first)]
    for i in range(keys, len(widths)):
        taken = sum(widths[k] + 2 for k in parts[-1])
        if width is not None and taken + widths[i] > width and len(parts[-1]) > keys:
            parts.append(list(first))
        parts[-1].append(i)
    return parts


def _line(cells: Sequence[tuple[str, int, bool]]) -> str:
    return "  ".join(
        cell.ljust(width) if left else cell.rjust(width) for cell, width, left in cells
    ).rstrip()


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
            cut = limit is not None and len(text) > limit
            flat[key] = f"{text[: (limit or 0) - 1]}…" if cut else text
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
