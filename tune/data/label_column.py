"""The column of labels in a table of pyarrow's: one label a row, or a list of them.

Hugging Face writes what numbers mean into the schema's metadata: `ClassLabel` with names, also within
`Sequence` or `List`. Lists of names are read by their dictionaries, and are bounded before they become Python's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from vptkit.errors import DataError
from vptkit.images.labelled_images import require_label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["LabelColumn", "find_label_column", "listed_feature"]

_USUAL = ("label", "labels")
_MOST_LABELS = 10_000  # of an image


class LabelColumn(NamedTuple):
    """Which column holds the labels.

    Attributes:
        name: of the column.
        kind: pyarrow's type.
        classes: what numbers mean, if something says so.
    """

    name: str
    kind: Any
    classes: tuple[str, ...] | None

    def words_in(self, paths: Sequence[str]) -> list[str]:
        """Those of a Parquet file's columns of which dictionaries are to be read, not words.

        Args:
            paths: of all columns, as LABELS.list.element.
        """
        if not _is_list(self.kind) or not _is_text(self.kind.value_type):
            return []
        return [path for path in paths if path.partition(".")[0] == self.name]

    def values(self, first: object, column: Any) -> list[object]:
        """What the column has in some rows: numbers, names, None, or lists of these.

        Args:
            first: file and row of the first of them, for messages.
            column: pyarrow's array, validated.

        Raises:
            DataError: an image with more labels than any has, or names that are too long.
        """
        if not _is_list(column.type):
            return list(column.to_pylist())
        import pyarrow.compute as pc

        most = pc.max(pc.list_value_length(column)).as_py() or 0
        if most > _MOST_LABELS:
            raise DataError(
                f"{first} or one soon after it: {most:,} labels, expected at most {_MOST_LABELS:,}"
            )
        flat = column.flatten()  # without what null rows hide
        words: list[object] | None = None
        if hasattr(flat, "dictionary"):
            _require_short(first, flat.dictionary)
            words, flat = list(flat.dictionary.to_pylist()), flat.indices
        values = flat.to_pylist()
        if words is not None:
            values = [None if i is None else words[i] for i in values]
        return _by_row(values, pc.list_value_length(column).to_pylist())


def _require_short(place: object, words: Any) -> None:
    """Refuse names that are longer than a class's may be, before they become Python's."""
    import pyarrow.compute as pc

    longest = pc.max(pc.binary_length(words)).as_py() or 0
    if longest > 4 * 1000:  # bytes of UTF-8
        row = pc.index(pc.binary_length(words), longest).as_py()
        require_label(words[row].as_py(), f"{place} or one soon after it")


def find_label_column(
    file: Path, schema: Any, features: Mapping[str, Any], *, multilabel: bool
) -> LabelColumn | None:
    """The only column of labels, or among several the one that is called label or labels.

    Args:
        file: the table, for messages.
        schema: pyarrow's.
        features: what Hugging Face says about columns.
        multilabel: lists are meant where there are both kinds; else single labels.

    Returns:
        None if there is none, or several without such a name.

    Raises:
        DataError: names that are none, or lists of something else.
    """
    lists = [field.name for field in schema if _is_list(field.type)]
    single = [name for name in schema.names if name not in lists]
    for names in (lists, single) if multilabel else (single, lists):
        told = [name for name in names if _class_label(features.get(name, {})) is not None]
        usual = [name for name in _USUAL if name in names]
        if len(told) == 1 or usual:
            name = told[0] if len(told) == 1 else usual[0]
            return _column(file, schema.field(name), features)
    return None


def listed_feature(entry: object) -> object:
    """A feature; [x], as Hugging Face once wrote lists of x, as it writes them now."""
    if isinstance(entry, list) and len(entry) == 1:
        return {"_type": "List", "feature": entry[0]}
    return entry


def _column(file: Path, field: Any, features: Mapping[str, Any]) -> LabelColumn:
    names = (_class_label(features.get(field.name, {})) or {}).get("names")
    if not isinstance(names, list | None) or not all(isinstance(n, str) for n in names or ()):
        raise DataError(f"{file}: its huggingface metadata has names that are no list of names")
    if _is_list(field.type) and not _is_label(field.type.value_type):
        raise DataError(
            f"{file}: its column {field.name} is {field.type}, expected lists of whole numbers or names"
        )
    return LabelColumn(field.name, field.type, None if names is None else tuple(names))


def _class_label(feature: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The ClassLabel that a feature is, or that its lists are of."""
    if feature.get("_type") == "ClassLabel":
        return feature
    inner = feature.get("feature")
    if feature.get("_type") in ("Sequence", "List", "LargeList") and isinstance(inner, dict):
        return inner if inner.get("_type") == "ClassLabel" else None
    return None


def _by_row(values: list[object], lengths: list[int | None]) -> list[object]:
    found: list[object] = []
    place = 0
    for length in lengths:
        found.append(None if length is None else values[place : place + length])
        place += length or 0
    return found


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_label(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(types.is_integer(kind) or types.is_null(kind) or _is_text(kind))
