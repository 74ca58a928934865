"""Lists of images, read line by line: CSV, TSV and JSON lines; a JSON document is read whole. Labels are not needed.

Names are relative to the list, and lead out of its folder only where that is allowed: a list may be a
stranger's.
"""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from vptkit.datasets.table_columns import image_column_of, is_known
from vptkit.errors import DataError
from vptkit.regular_files import open_regular, read_bounded
from vptkit.runtime.stores.store_address import shown_address, suffix_of
from vptkit.strict_json import parse_json

from .listed_names import names_beside
from .lookup import LostImage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import BinaryIO, TextIO

    from vptkit.images.image_file import ImageFile

    from .lookup import Lookup

    # Place in the list, as "line 3", and the name there, or what is wrong with it
    Named = tuple[str, str | DataError]

__all__ = ["walk_list"]

_LONGEST_LINE = 1 << 20  # characters
_MOST_JSON = 256 << 20  # bytes
_DELIMITERS = ",;\t|"


def walk_list(file: Path | str, lookup: Lookup) -> Iterator[ImageFile]:
    """The images that a list names, in its order; a line that names none is one that is lost.

    Args:
        file: the list, or its address in a store; names are relative to it.
        lookup: which column is meant, and whether names may lead elsewhere.

    Raises:
        DataError: it is no such list, or its first name leads out of its folder.
    """
    title, names = shown_address(file), names_beside(file, lookup)
    count = 0
    with _opened(file) as stream:
        for place, name in _names(stream, title, suffix_of(file), lookup.columns):
            where = f"{title}: {place}"
            if isinstance(name, DataError):
                yield LostImage(where, str(name).removeprefix(f"{where}: "))
                continue
            try:
                image = names.find(where, name)
            except DataError as error:
                if not count and names.outside(name):
                    raise
                image = LostImage(where, str(error).removeprefix(f"{where}: "))
            count += 1
            yield image


def _opened(file: Path | str) -> AbstractContextManager[BinaryIO]:
    if isinstance(file, str):
        from vptkit.runtime.stores.object_stores import reading

        return reading(file)
    return open_regular(file, DataError)


def _names(stream: BinaryIO, title: str, suffix: str, asked: Mapping[str, str]) -> Iterator[Named]:
    if suffix == ".json":
        text = read_bounded(stream, title, DataError, limit=_MOST_JSON)
        yield from _of_document(
            parse_json(b'{"":%s}' % text.removeprefix(b"\xef\xbb\xbf"), title, DataError)[""], title
        )
        return
    try:
        with io.TextIOWrapper(stream, "utf-8-sig", newline="") as text_stream:
            lines = _lines(text_stream, title)
            if suffix in (".jsonl", ".ndjson"):
                yield from _of_json_lines(lines, title, asked)
            else:
                yield from _of_csv(lines, title, asked)
    except UnicodeDecodeError as error:
        raise DataError(f"{title}: not a list in UTF-8: {error}") from error
    except csv.Error as error:
        raise DataError(f"{title}: not a CSV file: {error}") from error


def _lines(stream: TextIO, title: str) -> Iterator[str]:
    """Lines with their ends, none of which fills the memory."""
    while line := stream.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise DataError(f"{title}: a line of more than {_LONGEST_LINE} characters")
        yield line


def _of_csv(lines: Iterator[str], title: str, asked: Mapping[str, str]) -> Iterator[Named]:
    header = next(lines, "")
    columns = [
        (next(csv.reader([header.rstrip("\r\n")], delimiter=one), []), one) for one in _DELIMITERS
    ]
    known = [one for one in columns if is_known(one[0], "image", asked)]
    names, delimiter = max(known or columns, key=lambda one: len(one[0]))
    if not header.strip():
        raise DataError(f"{title}: no images in there")
    column = names.index(image_column_of(title, names, asked))
    reader = csv.reader(lines, delimiter=delimiter)
    for cells in reader:
        place = f"line {reader.line_num + 1}"  # the header was read before
        if any(cell.strip() for cell in cells):
            name = cells[column].strip() if column < len(cells) else ""
            lacks = DataError(f"has no {names[column].strip()}")
            yield place, name or lacks


def _of_json_lines(lines: Iterator[str], title: str, asked: Mapping[str, str]) -> Iterator[Named]:
    column: str | None = None
    for number, line in enumerate(lines, 1):
        place = f"line {number}"
        if not line.strip():
            continue
        try:
            cells = parse_json(line, f"{title}: {place}", DataError)
        except DataError as error:
            yield place, error
            continue
        column = column or image_column_of(title, list(cells), asked)
        yield place, _text(cells.get(column)) or DataError(f"has no {column}")


def _of_document(document: Any, title: str) -> Iterator[Named]:
    """Names of a JSON document: a list of names or of objects, COCO, {file: anything}, by splits or not."""
    if isinstance(document, dict) and isinstance(document.get("images"), list):
        document = document["images"]
    if isinstance(document, dict) and document:
        parts = [document]
        if all(isinstance(value, dict) for value in document.values()):
            parts = list(document.values())
        yield from ((json.dumps(name), name) for part in parts for name in part)
        return
    if not isinstance(document, list) or not document:
        raise DataError(
            f"{title}: expected a list of names or of objects with one, COCO's images, or "
            "{file: labels}"
        )
    column: str | None = None
    for number, one in enumerate(document):
        place = f"[{number}]"
        if isinstance(one, dict):
            column = column or image_column_of(title, _coco_names(one), {})
            yield place, _text(one.get(column)) or DataError(f"has no {column}")
        else:
            yield place, _text(one) or DataError("names no image")


def _coco_names(entry: dict[str, Any]) -> list[str]:
    """An entry's keys; of COCO's the id is a number and no name."""
    return ["file_name"] if "file_name" in entry else list(entry)


def _text(value: object) -> str:
    number = isinstance(value, int) and not isinstance(value, bool)
    return str(value).strip() if isinstance(value, str) or number else ""
