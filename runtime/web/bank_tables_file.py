"""What an adapter of a bank feeds, as one file: its rows, padded, one table behind the other.

A browser asks one adapter at a time, so its tables hold that one alone, and `adapter` is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.formats.bank_tables import BankShape, parse_rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vptkit.formats.bundle import Bundle

__all__ = ["TABLE_TYPES", "write_tables"]

TABLE_TYPES = ("float32", "float16")
_ALIGNED = 8  # bytes: JavaScript's arrays begin at multiples of their numbers' size


def write_tables(bundle: Bundle, entry: Mapping[str, Any], place: Path) -> list[dict[str, Any]]:
    """Write the tables of one adapter, little-endian.

    Args:
        bundle: a bank whose tables are inputs.
        entry: the adapter's, of the manifest.
        place: the file.

    Returns:
        For each table {"name", "dtype", "shape", "offset" in bytes, "count" of numbers}.

    Raises:
        BundleError: the adapter's file was changed, or does not fit the bank.
    """
    shape = BankShape.of_manifest(bundle.manifest, bundle.spec)
    rows = parse_rows(bundle.read(entry["file"]), bundle.path / entry["file"], shape)
    types = {value["name"]: value["dtype"] for value in bundle.manifest["inputs"]}
    tables = {
        name: np.zeros((count, *row), dtype=np.dtype(types[name]).newbyteorder("<"))
        for name, (count, row) in shape.rows().items()
    }
    rows.fill(shape, tables, 0)
    listed, offset = [], 0
    with place.open("wb") as stream:
        for name, table in tables.items():
            stream.write(table.tobytes())
            stream.write(bytes(-table.nbytes % _ALIGNED))
            told = {"name": name, "dtype": types[name], "shape": list(table.shape)}
            listed.append({**told, "offset": offset, "count": int(table.size)})
            offset = stream.tell()
    return listed
