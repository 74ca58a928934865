"""Images with any number of labels, also none: tables, COCO, {file: [labels]}, archives, and what has one each.

A table has several labels in a cell (`label_cells`), a column of 0 and 1 for each label, or a line for
each label of an image.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vptkit.errors import DataError
from vptkit.images.image_file import folders_in, image_files, spelled
from vptkit.images.labelled_images import Row, named_label, spelled_names
from vptkit.images.split_names import split_of_name
from vptkit.regular_files import is_file, is_folder, read_regular
from vptkit.strict_json import parse_json

from .coco_dataset import read_coco_labels
from .dataset_bounds import require_inside
from .dataset_files import read_archives
from .label_cells import is_uncertain, labels_in, separator_of, yes_or_no
from .list_places import ONE_HOT, lists_in, split_of_list
from .listed_images import ListedImages
from .table_columns import columns_of, not_one_hot
from .table_dataset import cell_text, has_labels, read_lines, split_of_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from vptkit.images.image_file import ImageFile
    from vptkit.images.labelled_images import Listing, Splits

    from .table_columns import Columns
    from .table_dataset import Line

__all__ = ["LabelSets", "LabelledImages", "read_multilabel"]

_TABLES = (".csv", ".tsv", ".jsonl")
_MOST_BYTES = 1 << 30
_COCO_KEYS = ("images", "annotations", "categories")


class LabelledImages(NamedTuple):
    """Some images and their labels.

    Attributes:
        images: files, or places in larger ones.
        truth: whether an image has a label, bool [images, C].
    """

    images: tuple[ImageFile, ...]
    truth: NDArray[np.bool_]


class LabelSets(NamedTuple):
    """A data set.

    Attributes:
        labels: C names: of a table's columns in their order, else by number or by alphabet.
        splits: train, val, test, ood; "" where nothing names a split.
    """

    labels: tuple[str, ...]
    splits: dict[str, LabelledImages]


def read_multilabel(
    data: Path,
    single: Callable[[], Splits],
    *,
    archived: Callable[[], Listing | None] | None = None,
    allow_outside: bool = False,
    columns: Mapping[str, str] | None = None,
) -> LabelSets:
    """The images of a data set with all their labels.

    Args:
        data: a table, a JSON of COCO or of {file: [labels]}, or a folder with such a list in it, or in each
            of its splits (`list_places`; `labels.json` for the second kind of JSON).
        single: reads whatever else there is; each image has one label there.
        archived: reads archives, None if there is none; without it, those of
            `vptkit.datasets.dataset_files.ARCHIVES` are read.
        allow_outside: of `vptkit.datasets.dataset_bounds.require_inside`.
        columns: of `vptkit.datasets.table_columns.parse_columns`.

    Raises:
        DataError: nothing of that kind, or broken; the message says which file, line and column. Or files
            that lie outside of the data set.
    """
    asked = columns or {}
    rows, declared = _rows(data, asked, allow_outside=allow_outside)
    names = None
    if rows is None:
        if archived is None:
            listing = read_archives(data, allow_outside=allow_outside, multilabel=True)
        else:
            listing = archived()
        if listing is None:
            return _one_each(single())
        rows, names = [_several(row) for row in listing.rows], listing.names
    require_inside(data, (row.image for row in rows), allow_outside=allow_outside)
    return _grouped(data, rows, declared, spelled_names(data, names))


def _rows(
    data: Path, asked: Mapping[str, str], *, allow_outside: bool
) -> tuple[list[Row] | None, tuple[str, ...]]:
    """The images, and the labels that have columns; None if no list is there."""
    if is_file(data):
        if data.suffix.lower() in _TABLES:
            rows, names = _table_rows(data, asked)
            return sorted(rows, key=lambda row: Path(str(row.image))), names
        if data.suffix.lower() == ".json":
            return _by_folder(data.parent, _json_rows(data)), ()
        return None, ()
    lists = lists_in(data, multilabel=True) if is_folder(data) else []
    if not lists:
        return None, ()
    require_inside(data, lists, allow_outside=allow_outside)
    tables = [file for file in lists if file.suffix.lower() in _TABLES]
    own = tables and tables[0].name == ONE_HOT
    if not own and not all(has_labels(file, asked) for file in tables) and _has_classes(data):
        return None, ()  # about something else, as captions; who reads folders says more
    found: list[Row] = []
    declared: dict[str, None] = {}
    for file in lists:
        split = split_of_list(data, file)
        if file in tables:
            rows, names = _table_rows(file, asked, split)
            declared |= dict.fromkeys(names)
        else:
            rows = list(_json_rows(file, split))
        found += rows
    return _by_folder(data, found), tuple(declared)


def _has_classes(data: Path) -> bool:
    """Whether images lie in two folders that are called after no split."""
    folders = [folder for folder in folders_in(data) if split_of_name(folder.name) is None]
    return sum(bool(image_files(folder)) for folder in folders) > 1


def _by_folder(root: Path, rows: Iterable[Row]) -> list[Row]:
    """Rows with the split that an image's folder is called after, where all have one."""
    found = list(rows)
    if all(row.split for row in found):
        return found
    told = [row._replace(split=row.split or _split_in_path(root, row.image)) for row in found]
    return told if all(row.split for row in told) else found


def _split_in_path(root: Path, image: ImageFile) -> str:
    parts = image.relative_to(root).parts if isinstance(image, Path) else ()
    return (split_of_name(parts[0]) or "") if len(parts) > 1 else ""


def _table_rows(
    file: Path, asked: Mapping[str, str], split: str = ""
) -> tuple[list[Row], tuple[str, ...]]:
    """Rows of a table, an image once each, and the labels that have columns."""
    names, rest = read_lines(file, asked)
    columns, lines = columns_of(file, names, asked, multilabel=True), list(rest)
    separator = ""
    if columns.label is not None:
        cells = (line.cells.get(columns.label) for line in lines)
        separator = separator_of(file, (cell for cell in cells if isinstance(cell, str)), asked)
    found, rows = ListedImages(file), dict[str, Row]()
    for line in lines:
        where = f"{file}: line {line.number}"
        name = cell_text(line.cells.get(columns.image))
        if not name:
            raise DataError(f"{where} has no {columns.image.strip()}")
        labels = _labels(file, columns, line, separator)
        cell = "" if columns.split is None else cell_text(line.cells.get(columns.split))
        told = split_of_cell(where, cell) or split
        if (known := rows.get(name)) is None:
            rows[name] = Row(told, labels, found.find(where, name, f"line {line.number}"))
            continue
        if columns.label is None or known.split != told:
            odd = "in another split" if known.split != told else "already"
            raise DataError(f"{where}: {name} stands in an earlier line {odd}")
        rows[name] = known._replace(label=tuple(dict.fromkeys((*_labels_of(known), *labels))))
    return list(rows.values()), tuple(name.strip() for name in columns.classes)


def _labels(file: Path, columns: Columns, line: Line, separator: str) -> tuple[str | int, ...]:
    if columns.label is not None:
        return labels_in(f"{file}: line {line.number}", line.cells.get(columns.label), separator)
    found = []
    for column in columns.classes:
        cell = line.cells.get(column, "")
        said = yes_or_no(cell)
        if said is None and is_uncertain(cell):
            raise DataError(
                f"{file}: line {line.number}: {column.strip()} is {cell!r}, which says neither yes nor no; "
                "write 1 or 0, or take the image out"
            )
        if said is None:
            odd = not_one_hot(file, columns, line.number, column.strip(), str(cell))
            raise DataError(f"{odd}. Of several columns of 0 and 1: label=NAME|NAME")
        found += [column.strip()] if said else []
    return tuple(found)


def _json_rows(file: Path, split: str = "") -> Iterator[Row]:
    """Rows of COCO, of {file: [labels]}, or of {split: {file: [labels]}}."""
    document = parse_json(read_regular(file, DataError, limit=_MOST_BYTES), file, DataError)
    if all(isinstance(document.get(key), list) for key in _COCO_KEYS):
        yield from read_coco_labels(file, split)
        return
    found = ListedImages(file)
    by_split = {split: document}
    if document and all(isinstance(value, dict) for value in document.values()):
        by_split = {split_of_cell(f"{file}: a key", name): part for name, part in document.items()}
    for own, part in by_split.items():
        for name, cell in part.items():
            where = f"{file}: {name!r}"
            if not isinstance(cell, list | str | int | None) or isinstance(cell, bool):
                raise DataError(
                    f"{where}: {str(cell)[:40]!r}, expected a list of labels. Expected "
                    f"{{file: [labels]}}, or COCO's {', '.join(_COCO_KEYS)}"
                )
            labels = labels_in(where, [cell] if isinstance(cell, str) else cell, "")
            yield Row(own, labels, found.find(where, name, repr(name)))


def _several(row: Row) -> Row:
    """A row of an archive with a tuple of labels."""
    if row.label is None:
        raise DataError(
            f"{row.image}: its label is null; an image without labels has an empty list"
        )
    return row._replace(label=labels_in(str(row.image), row.label, ""))


def _grouped(
    place: Path, rows: Sequence[Row], declared: Sequence[str], names: Sequence[str] | None = None
) -> LabelSets:
    """Rows by split, with their labels as a matrix.

    Args:
        place: what was read, for messages.
        rows: the images, with tuples of labels.
        declared: labels that have columns.
        names: of labels that are numbers.

    Raises:
        DataError: no images or labels, labels that are partly numbers and partly names, or images of
            which only some have a split.
    """
    if not rows:
        raise DataError(f"{place}: no images in there")
    splits = {row.split for row in rows}
    if "" in splits and len(splits) > 1:
        image = next(row.image for row in rows if not row.split)
        raise DataError(
            f"{image}: nothing says which split this is of, though other images have one"
            f" ({', '.join(sorted(splits - {''}))})"
        )
    rows = [_named(row, names) for row in rows]
    given = {label for row in rows for label in _labels_of(row)}
    if len({type(label) for label in given}) > 1:
        told = ", ".join(sorted(map(repr, given))[:4])
        raise DataError(f"{place}: some labels are numbers, some are names, as {told}")
    order: list[str | int] = list(names or dict.fromkeys(map(spelled, declared))) or sorted(given)
    if not order:
        raise DataError(f"{place}: no image has a label")
    return LabelSets(
        tuple(map(str, order)),
        {name: _some(order, [row for row in rows if row.split == name]) for name in sorted(splits)},
    )


def _some(order: Sequence[str | int], rows: Sequence[Row]) -> LabelledImages:
    places = {label: place for place, label in enumerate(order)}
    truth = np.zeros((len(rows), len(order)), dtype=bool)
    for number, row in enumerate(rows):
        truth[number, [places[label] for label in _labels_of(row)]] = True
    return LabelledImages(tuple(row.image for row in rows), truth)


def _named(row: Row, names: Sequence[str] | None) -> Row:
    return row._replace(
        label=tuple(named_label(label, names, row.image) for label in _labels_of(row))
    )


def _labels_of(row: Row) -> tuple[str | int, ...]:
    assert isinstance(row.label, tuple)  # noqa: S101 - of our own making
    return row.label


def _one_each(splits: Splits) -> LabelSets:
    """The same of images with one label each."""
    labels = list(dict.fromkeys(label for classes in splits.values() for label in classes))
    found = {}
    for name, classes in splits.items():
        rows = [Row(name, (label,), image) for label, images in classes.items() for image in images]
        found[name] = _some(labels, rows)
    return LabelSets(tuple(labels), found)
