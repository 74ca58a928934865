"""The labels in a cell of a table: several with ; | or , between them, or as a JSON list.

Which separator is meant is decided once for a table, by all its cells: the only one that occurs. Where
two do, or where words might be labels, that is a question, which `--columns separator=` answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.errors import DataError
from vptkit.strict_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["is_uncertain", "labels_in", "require_one_label", "separator_of", "several", "yes_or_no"]

_SEPARATORS = (";", "|", ",")
_WORDS = {"semicolon": ";", "pipe": "|", "comma": ",", "space": " ", "none": ""}
_YES, _NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no", "")
_UNCERTAIN = ("-1", "-1.0", "nan", "na", "n/a", "null", "none", "?", "u", "uncertain", "unknown")


def separator_of(file: object, cells: Iterable[str], asked: Mapping[str, str]) -> str:
    """What stands between labels in the cells of a table; "" for nothing.

    Args:
        file: the table, for messages.
        cells: of the column of labels, as text.
        asked: of `vptkit.datasets.table_columns.parse_columns`.

    Raises:
        DataError: the cells do not say which, or another word was given.
    """
    if said := asked.get("separator"):
        found = _WORDS.get(said.lower(), said)
        if found not in _WORDS.values():
            words = ", ".join([*_SEPARATORS[:2], *_WORDS])
            raise DataError(f"--columns: separator={said}, expected one of {words}")
        return found
    plain = [cell for cell in cells if not _is_list(cell)]
    used = [one for one in _SEPARATORS if any(one in cell for cell in plain)]
    if len(used) > 1:
        cell = next(cell for cell in plain if used[0] in cell)
        raise DataError(
            f"{file}: labels are separated by {' or by '.join(used)}, as in {cell[:80]!r}. Say --columns "
            "separator= with semicolon, pipe or comma"
        )
    spaced = next((cell for cell in plain if " " in cell.strip()), None)
    if not used and spaced is not None:
        raise DataError(
            f"{file}: {spaced[:80]!r} may be one label or several. Say --columns separator=space, or "
            "separator=none if each cell is one label"
        )
    return used[0] if used else ""


def labels_in(where: str, cell: Any, separator: str) -> tuple[str | int, ...]:
    """The labels of a cell, each once; of an empty one none.

    Args:
        where: file and line, for messages.
        cell: text; of JSON lines also a number, a list, or None.
        separator: of `separator_of`.

    Raises:
        DataError: something else, or a list that is none.
    """
    if isinstance(cell, str):
        cell = cell.strip()
        if _is_list(cell):
            cell = parse_json(f'{{"labels": {cell}}}', f"{where}: its labels", DataError)["labels"]
        elif separator:
            cell = [part.strip() for part in cell.split(separator)]
        else:
            cell = [cell]
    values = [] if cell is None else cell if isinstance(cell, list) else [cell]
    for value in values:
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise DataError(f"{where}: {value!r} among its labels, expected names or numbers")
    if len(set(values)) < len(values) and set(values) <= {0, 1}:
        raise DataError(
            f"{where}: its labels are {str(values[:8])[1:-1]}, which may be a 0 or 1 for each label. Expected "
            "the numbers or names of those that it has, each once"
        )
    return tuple(dict.fromkeys(value for value in values if value != ""))


def yes_or_no(cell: object) -> bool | None:
    """What a column of 0 and 1 says: also true and false, yes and no; empty is no. None: neither."""
    text = _plain(cell)
    return True if text in _YES else False if text in _NO else None


def is_uncertain(cell: object) -> bool:
    """Whether a cell is how people write that they do not know."""
    return _plain(cell) in _UNCERTAIN


def require_one_label(file: object, labels: Mapping[str, int], asked: Mapping[str, str]) -> None:
    """Refuse cells of several labels where an image is to have one.

    They are such if what stands between separators are labels of other images.

    Args:
        file: the table, for messages.
        labels: label → the first line that has it.
        asked: of `vptkit.datasets.table_columns.parse_columns`; `separator=none` says that each cell is one.

    Raises:
        DataError: there is one.
    """
    if asked.get("separator") == "none":
        return
    for label, line in labels.items():
        for separator in _SEPARATORS:
            parts = [part.strip() for part in label.split(separator)]
            if len(parts) > 1 and all(part in labels for part in parts):
                raise several(
                    file, line, parts, f"; if {label!r} is one, say --columns separator=none"
                )
        if _is_list(label) and len(found := labels_in(f"{file}: line {line}", label, "")) > 1:
            raise several(file, line, [str(one) for one in found])


def several(file: object, line: int, labels: Sequence[str], hint: str = "") -> DataError:
    """For a row with several labels where an image is to have one."""
    return DataError(
        f"{file}: line {line} has {len(labels)} labels ({', '.join(labels[:4])}); several labels an image "
        f"need --task multilabel{hint}"
    )


def _is_list(cell: str) -> bool:
    return cell.strip().startswith("[") and cell.strip().endswith("]")


def _plain(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool | int | float | str):
        return str(cell).strip().lower()
    return "a list" if isinstance(cell, list) else "an object"
