"""Which column of a table holds images, and what its cells are: bytes, or a struct of bytes and path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.errors import DataError
from vptkit.strict_json import parse_json

from .arrow_library import pyarrow

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "LONGEST_PATH",
    "columns_text",
    "contents",
    "features_of",
    "image_column",
    "require_names",
]

LONGEST_PATH = 4096  # characters of one in a cell


def image_column(schema: Any, features: Mapping[str, Any]) -> str | None:
    """The column of images: the only one that may be, or of several the one called image.

    Args:
        schema: pyarrow's.
        features: of `features_of`; entries that are no objects say nothing.

    Returns:
        None if there is none, or several of which none is called so.
    """
    known = {name: entry for name, entry in features.items() if isinstance(entry, dict)}
    found = [field.name for field in schema if _holds_images(field.type, known.get(field.name, {}))]
    if len(found) == 1:
        return str(found[0])
    return "image" if "image" in found else None


def require_names(file: Path | str, schema: Any) -> None:
    """Refuse a table with two columns of one name.

    Raises:
        DataError: it has such.
    """
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise DataError(f"{file}: several columns are called {twice[0]!r}")


def columns_text(schema: Any) -> str:
    """As "id (int64), image (binary)"."""
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def features_of(file: Path | str, schema: Any) -> dict[str, Any]:
    """What Hugging Face wrote about the columns into the schema's metadata.

    Raises:
        DataError: it is broken.
    """
    text = (schema.metadata or {}).get(b"huggingface", b"{}")
    found: Any = parse_json(text, f"{file}: its huggingface metadata is broken", DataError)
    for key in ("info", "features"):
        found = found.get(key) or {}
        if not isinstance(found, dict):
            raise DataError(f"{file}: its huggingface metadata is broken: {key} is no object")
    return dict(found)


def contents(column: Any) -> tuple[Any, list[str | None]]:
    """Bytes and path of each image, from a struct of both or from bytes alone.

    Args:
        column: pyarrow's array, validated.

    Returns:
        An array of bytes, and as many paths.
    """
    if column.type.num_fields == 0:
        return column, [None] * len(column)
    kinds = [field.name for field in column.type]
    parts = dict(zip(kinds, column.flatten(), strict=True))
    paths = parts.get("path")
    if paths is None or not _is_text(paths.type):
        return parts["bytes"], [None] * len(column)
    return parts["bytes"], paths.to_pylist()


def _holds_images(kind: Any, feature: dict[str, Any]) -> bool:
    types = pyarrow().types
    if types.is_struct(kind):
        return any(field.name == "bytes" and _is_binary(field.type) for field in kind)
    return _is_binary(kind) and feature.get("_type", "Image") in ("Image", "Value")


def _is_binary(kind: Any) -> bool:
    types = pyarrow().types
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_text(kind: Any) -> bool:
    types = pyarrow().types
    return bool(types.is_string(kind) or types.is_large_string(kind))
