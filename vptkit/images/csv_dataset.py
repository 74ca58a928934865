"""Labelled images that a CSV file lists: columns path, label and perhaps split."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.errors import DataError
from vptkit.regular_files import is_file, read_regular

from .labelled_images import SPLIT_NAMES, Row, Splits, group_rows, split_of_name

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["read_csv"]

_DELIMITERS = ",;\t|"
_MOST_BYTES = 256 << 20  # some million images


def read_csv(file: Path) -> Splits:
    """The images of a CSV file, in the order of their paths.

    The first line names the columns: path (relative to the file's folder), label, and perhaps
    split; others are passed over. The delimiter (, ; | or a tab) is the one that makes these names
    of it.

    Raises:
        DataError: not such a file, an empty cell, a cell too many, an unknown split, a path that
            is not there or stands there twice; the line is named.
    """
    content = read_regular(file, DataError, limit=_MOST_BYTES)
    try:
        lines = io.StringIO(content.decode("utf-8-sig"), newline="")
        rows = sorted(_rows(file, lines.readline(), lines), key=lambda row: Path(str(row.image)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: not a CSV file in UTF-8: {error}") from error
    return group_rows(file, rows)


def _rows(file: Path, header: str, lines: Iterator[str]) -> Iterator[Row]:
    columns, delimiter = _columns(file, header)
    seen: dict[str, int] = {}
    reader = csv.reader(lines, delimiter=delimiter)
    for cells in reader:
        number = reader.line_num + 1  # the header was read before
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) < len(columns) or any(cell.strip() for cell in cells[len(columns) :]):
            raise DataError(
                f"{file}: line {number} has {len(cells)} columns, expected {len(columns)}; a "
                f"{delimiter!r} within a cell needs quotes around it"
            )
        row = dict(zip(columns, cells, strict=False))
        path, label = (row[key].strip() for key in ("path", "label"))
        if not path or not label:
            raise DataError(f"{file}: line {number} has no {'label' if path else 'path'}")
        image = file.parent / path
        if not is_file(image):
            raise DataError(f"{file}: line {number}: {path}: no such file below {file.parent}")
        if (place := os.path.normpath(image)) in seen:
            raise DataError(f"{file}: line {number}: {path} stands in line {seen[place]} already")
        seen[place] = number
        yield Row(_split(f"{file}: line {number}", row.get("split", "")), label, image)


def _columns(file: Path, header: str) -> tuple[list[str], str]:
    """Names of the columns, and the delimiter."""
    for delimiter in _DELIMITERS:
        names = [
            name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])
        ]
        if names.count("path") == names.count("label") == 1 >= names.count("split"):
            return names, delimiter
    raise DataError(
        f"{file}: the first line is {header.strip()[:80]!r}, expected the names of columns, path "
        "and label among them, each once, as path,label,split"
    )


def _split(where: str, name: str) -> str:
    if not name.strip():
        return ""
    split = split_of_name(name)
    if split is None:
        raise DataError(f"{where}: the split is {name!r}, expected {', '.join(SPLIT_NAMES)}")
    return split
