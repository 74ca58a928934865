"""Labelled images that a table lists, a row an image: CSV, or JSON lines; as Kaggle and others write them.

Columns are known by their names (`table_columns`), images by their path or name (`listed_images`).
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vptkit.errors import DataError
from vptkit.images.labelled_images import SPLIT_NAMES, Row, Splits, group_rows, split_of_name
from vptkit.regular_files import read_regular
from vptkit.strict_json import parse_json

from .label_cells import require_one_label, several
from .listed_images import ListedImages
from .table_columns import Columns, columns_of, is_known, not_one_hot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "Line",
    "cell_text",
    "has_labels",
    "read_lines",
    "read_table",
    "split_of_cell",
    "table_rows",
]

_DELIMITERS = ",;\t|"
_MOST_BYTES = 256 << 20  # some million images
_ONES, _ZEROS = ("1", "1.0", "true"), ("0", "0.0", "false", "")


class Line(NamedTuple):
    """A row of a table: the number of its line, and column → value."""

    number: int
    cells: Mapping[str, Any]


def read_table(file: Path, asked: Mapping[str, str] | None = None) -> Splits:
    """The images of a CSV (.csv, .tsv) or of JSON lines (.jsonl), in the order of their paths.

    The first line of a CSV names the columns, and its delimiter (, ; | or a tab) is the one that makes known
    names of it. Instead of a column of labels there may be a column of 0 and 1 for each class.

    Args:
        file: the table; paths are relative to its folder.
        asked: of `vptkit.datasets.table_columns.parse_columns`.

    Raises:
        DataError: not such a file, a column that is not known, an empty cell, a cell too many, an
            unknown split, several labels, an image that is not there, is listed twice, or may be one of
            several; the line is named.
    """
    rows = list(table_rows(file, asked or {}))
    return group_rows(file, sorted(rows, key=lambda row: Path(str(row.image))))


def table_rows(file: Path, asked: Mapping[str, str], split: str = "") -> Iterator[Row]:
    """The images of a table, row by row; see `read_table`.

    Args:
        file, asked: of `read_table`.
        split: of rows that name none.
    """
    names, lines = read_lines(file, asked)
    columns = columns_of(file, names, asked)
    found = ListedImages(file)
    given: dict[str, int] = {}
    for line in lines:
        where = f"{file}: line {line.number}"
        name, label = cell_text(line.cells.get(columns.image)), _label(file, columns, line)
        if not name or label == "":
            hint = (
                "" if columns.label or not name else "; images without any need --task multilabel"
            )
            raise DataError(f"{where} has no {'label' if name else columns.image.strip()}{hint}")
        if isinstance(label, str):
            given.setdefault(label, line.number)
        image = found.find(where, name, f"line {line.number}")
        told = (
            ""
            if columns.split is None
            else split_of_cell(where, cell_text(line.cells.get(columns.split)))
        )
        yield Row(told or split, label, image)
    require_one_label(file, given, asked)


def has_labels(file: Path, asked: Mapping[str, str]) -> bool:
    """Whether a table has a column of images and one of labels, by their names."""
    names, _ = read_lines(file, asked)
    return all(is_known(names, role, asked) for role in ("image", "label"))


def read_lines(file: Path, asked: Mapping[str, str]) -> tuple[Sequence[str], Iterator[Line]]:
    """Names of a table's columns, and its rows.

    Args:
        file, asked: of `read_table`.

    Raises:
        DataError: not such a file, or a row with a cell too many or too few.
    """
    content, lines = (
        read_regular(file, DataError, limit=_MOST_BYTES),
        file.suffix.lower() == ".jsonl",
    )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "JSON lines" if lines else "a CSV file"
        raise DataError(f"{file}: not {kind} in UTF-8: {error}") from error
    return _json_lines(file, text) if lines else _csv(file, text, asked)


def _json_lines(file: Path, text: str) -> tuple[Sequence[str], Iterator[Line]]:
    lines = [
        Line(number, parse_json(line, f"{file}: line {number}", DataError))
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]
    if not lines:
        raise DataError(f"{file}: no images in there")
    return list(lines[0].cells), iter(lines)


def _csv(file: Path, text: str, asked: Mapping[str, str]) -> tuple[Sequence[str], Iterator[Line]]:
    stream = io.StringIO(text, newline="")
    header = stream.readline()
    try:
        names, delimiter = _header(file, header, asked)
    except csv.Error as error:
        raise DataError(f"{file}: not a CSV file: {error}") from error
    return names, _csv_lines(file, names, delimiter, stream)


def _csv_lines(
    file: Path, names: Sequence[str], delimiter: str, stream: Iterator[str]
) -> Iterator[Line]:
    reader = csv.reader(stream, delimiter=delimiter)
    try:
        for cells in reader:
            number = reader.line_num + 1  # the header was read before
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) < len(names) or any(cell.strip() for cell in cells[len(names) :]):
                raise DataError(
                    f"{file}: line {number} has {len(cells)} columns, expected {len(names)}; a "
                    f"{delimiter!r} within a cell needs quotes around it"
                )
            yield Line(number, dict(zip(names, cells, strict=False)))
    except csv.Error as error:
        raise DataError(f"{file}: not a CSV file: {error}") from error


def _header(file: Path, header: str, asked: Mapping[str, str]) -> tuple[list[str], str]:
    """Names of the columns, and the delimiter that makes known ones of the line."""
    found: list[tuple[int, list[str], str]] = []
    for delimiter in _DELIMITERS:
        names = next(csv.reader([header.rstrip("\r\n")], delimiter=delimiter), [])
        known = sum(is_known(names, role, asked) for role in ("image", "label"))
        found.append((known, names, delimiter))
    known, names, delimiter = max(found, key=lambda one: (one[0], len(one[1])))
    if len(names) < 2:
        raise DataError(
            f"{file}: the first line is {header.strip()[:80]!r}, expected the names of columns, path "
            "and label among them, each once, as path,label,split"
        )
    return names, delimiter


def _label(file: Path, columns: Columns, line: Line) -> object:
    if columns.label is not None:
        label = line.cells.get(columns.label, "")
        if isinstance(label, list):
            if len(label) == 1:
                return label[0]
            raise several(file, line.number, [str(one) for one in label])
        return label.strip() if isinstance(label, str) else label
    ones = []
    for name in columns.classes:
        value = cell_text(line.cells.get(name, "")).lower()
        if value not in (*_ONES, *_ZEROS):
            raise not_one_hot(file, columns, line.number, name.strip(), value)
        if value in _ONES:
            ones.append(name.strip())
    if len(ones) > 1:
        raise several(file, line.number, ones)
    return ones[0] if ones else ""


def cell_text(value: object) -> str:
    """A cell as text; a number of JSON too, which is how some write an id."""
    return str(value).strip() if isinstance(value, str | int | bool) else ""


def split_of_cell(where: str, name: str) -> str:
    """The split that a cell names; "" if it is empty.

    Raises:
        DataError: another word.
    """
    if not name:
        return ""
    split = split_of_name(name)
    if split is None:
        raise DataError(
            f"{where}: the split is {name!r}, expected {', '.join(SPLIT_NAMES)}; if that column is "
            "something else, say --columns split="
        )
    return split
