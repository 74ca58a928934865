"""Which column of a table is the image, which the label, which the split; two candidates are a question.

The names are those that Kaggle, Roboflow and Hugging Face write. `path`, `label` and `split`, our own, are
meant wherever they stand. Of others one must be the only one of its kind, or `--columns` says which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vptkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Columns", "columns_of", "image_column_of", "is_known", "not_one_hot", "parse_columns"]

_OURS = {"image": "path", "label": "label", "split": "split"}
_NAMES = {
    "image": "path image image_id image_path image_name img filename file_name filepath file_path file id",
    "label": "label labels class class_name category target",
    "split": "split set subset",
}
_SEPARATOR = "separator"  # between labels in one cell, see `label_cells`
_OPTION = "--columns image=NAME,label=NAME[,split=NAME]"


class Columns(NamedTuple):
    """Names of columns, as the table has them.

    Attributes:
        image: the image's path, or its name without the ending.
        label: the class; None of a table with a column of 0 and 1 for each class.
        split: the split; None if nothing says.
        classes: the columns of such a table.
    """

    image: str
    label: str | None
    split: str | None
    classes: tuple[str, ...] = ()


def parse_columns(text: str | None) -> dict[str, str]:
    """What `--columns image=file,label=kind,split=part` says; `split=` is for none.

    With several labels an image also `separator=;`, between labels in one cell, and `label=cat|dog`, the
    columns of 0 and 1.

    Raises:
        DataError: another form, or another word than image, label, split and separator.
    """
    found: dict[str, str] = {}
    for part in (text or "").split(","):
        role, equals, name = (word.strip() for word in part.partition("="))
        if not text:
            break
        known = role in _NAMES or role == _SEPARATOR
        if not equals or not known or role in found or not (name or role == "split"):
            raise DataError(f"--columns: {part!r}, expected {_OPTION.removeprefix('--columns ')}")
        found[role] = name
    return found


def columns_of(
    where: object, names: Sequence[str], asked: Mapping[str, str], *, multilabel: bool = False
) -> Columns:
    """The columns of a table.

    Args:
        where: the table, for messages.
        names: of all columns, in their order.
        asked: of `parse_columns`.
        multilabel: an image may have any number of labels: one column of 0 and 1 is enough, and
            `label=cat|dog` names such columns.

    Raises:
        DataError: a column is not there or there twice, or nothing says which one is meant; the
            message has the option that answers.
    """
    some = asked.get("label", "") if multilabel else ""
    if "|" in some and some not in names:
        rest = {role: name for role, name in asked.items() if role != "label"}
        classes = [
            _column(where, names, "label", {"label": one.strip()}) for one in some.split("|")
        ]
        image, split = (_column(where, names, role, rest) for role in ("image", "split"))
        return Columns(image or names[0], None, split, tuple(filter(None, classes)))
    found = {role: _column(where, names, role, asked) for role in _NAMES}
    image, label = found["image"], found["label"]
    if image is None:
        raise DataError(_question(where, names, asked, "image", "no column of images is known"))
    if label is not None:
        return Columns(image, label, found["split"])
    others = tuple(name for name in names if name not in (image, found["split"]) and name.strip())
    if len(others) < (1 if multilabel else 2):
        raise DataError(_question(where, names, asked, "label", "no column of labels is known"))
    return Columns(image, None, found["split"], others)


def image_column_of(where: object, names: Sequence[str], asked: Mapping[str, str]) -> str:
    """The column of images of a table that needs no labels.

    Args:
        where, names, asked: of `columns_of`.

    Raises:
        DataError: it is not there or there twice, or nothing says which one is meant.
    """
    found = _column(where, names, "image", asked)
    if found is None:
        held = ", ".join(name.strip()[:40] for name in names[:12])
        raise DataError(
            f"{where}: no column of images is known. Say --columns image=NAME, or call it path. Its "
            f"columns are {held}{', …' if len(names) > 12 else ''}"
        )
    return found


def is_known(names: Sequence[str], role: str, asked: Mapping[str, str]) -> bool:
    """Whether a column may be the image, the label or the split, by its name."""
    wanted = [asked[role].lower()] if asked.get(role) else _NAMES[role].split()
    return any(name.strip().lower() in wanted for name in names)


def not_one_hot(where: object, columns: Columns, line: int, name: str, value: str) -> DataError:
    """For a table without a column of labels whose other columns are no 0 and 1 either."""
    names = [columns.image, *columns.classes]
    why = f"no column of labels is known (line {line}: {name} is {value[:40]!r}, not 0 or 1)"
    return DataError(_question(where, names, {"image": columns.image}, "label", why))


def _column(where: object, names: Sequence[str], role: str, asked: Mapping[str, str]) -> str | None:
    if role in asked:
        if not asked[role]:
            return None
        wanted = [asked[role].lower()]
    else:
        wanted = _NAMES[role].split()
    plain = [name.strip().lower() for name in names]
    there = [name for name, low in zip(names, plain, strict=True) if low in wanted]
    if role in asked and len(there) > 1:  # capitals may tell
        there = [name for name in there if name.strip() == asked[role]] or there
    if role not in asked and plain.count(_OURS[role]) == 1:
        return names[plain.index(_OURS[role])]
    if len(there) == 1:
        return there[0]
    if there:
        kinds = " and ".join(name.strip() for name in there[:4])
        why = (
            f"{kinds} may all be the {role}"
            if len(there) > 2
            else f"{kinds} may both be the {role}"
        )
        raise DataError(_question(where, names, asked, role, why, there[0]))
    if role in asked:
        raise DataError(_question(where, names, {}, role, f"it has no column {asked[role]!r}"))
    return None


def _question(
    where: object,
    names: Sequence[str],
    asked: Mapping[str, str],
    role: str,
    why: str,
    example: str | None = None,
) -> str:
    """As "x.csv: id and image may both be the image. Say --columns image=id,label=kind. Its columns …"."""
    said = {"image": "NAME", "label": "NAME", **asked}
    for other in said:
        if other not in asked and other != role:
            known = [n for n in names if n.strip().lower() in _NAMES[other].split()]
            said[other] = known[0].strip() if len(known) == 1 else said[other]
    said[role] = "NAME" if example is None else example.strip()
    option = ",".join(f"{key}={value}" for key, value in said.items())
    held = ", ".join(name.strip()[:40] for name in names[:12]) + (", …" if len(names) > 12 else "")
    return (
        f"{where}: {why}. Say --columns {option} (vptkit tune, eval, run), or call them path, label and "
        f"split. Its columns are {held}"
    )
