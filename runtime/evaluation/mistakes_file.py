"""The mistakes of an evaluation as a file, CSV or JSON lines, that appears whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vptkit.atomic_files import atomic_file, require_absent, require_writable
from vptkit.errors import OutputError
from vptkit.shown_text import spreadsheet_rows
from vptkit.strict_json import json_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .evaluation_result import Mistake
    from .multilabel_result import MultilabelMistake

__all__ = ["require_mistakes_file", "write_mistakes"]

_HEAD = ("path", "truth", "answered", "probability")
_OF_SEVERAL = ("path", "truth", "answered", "missing", "extra", "distance")


def require_mistakes_file(path: Path, *, force: bool) -> None:
    """Find out before a long evaluation whether its mistakes could be written.

    Raises:
        OutputError: another suffix than .csv or .jsonl, the file exists and force is off, or it
            cannot be written.
    """
    if path.suffix not in (".csv", ".jsonl"):
        raise OutputError(f"{path}: mistakes are saved as .csv or .jsonl, not {path.suffix!r}")
    require_absent(path, force=force)
    require_writable(path)


def write_mistakes(
    mistakes: Iterable[Mistake | MultilabelMistake], path: Path, *, several: bool = False
) -> None:
    """Write a line a mistake, an existing file is replaced.

    Args:
        mistakes: what is written, as `to_json` has it; in CSV a list of labels is a JSON array.
        path: of the file.
        several: images may have several labels.

    In CSV no text is a formula (`vptkit.shown_text.spreadsheet_rows`); JSON lines have it as it is,
    but for bytes of names that are not UTF-8 (`vptkit.strict_json.json_text`).

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_file(path) as part, part.open("w", encoding="utf-8", newline="") as stream:
        if path.suffix == ".jsonl":
            stream.writelines(f"{json_text(one.to_json())}\n" for one in mistakes)
            return
        write = spreadsheet_rows(stream)
        write(_OF_SEVERAL if several else _HEAD)
        for one in mistakes:
            cells = one.to_json().values()
            write(json_text(cell) if isinstance(cell, list) else cell for cell in cells)
