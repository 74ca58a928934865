"""What belongs to a data set: files below its folder, once links and `..` are resolved.

A CSV, a column of paths, or a link in a folder may name any file of this machine. Its pixels would
stand in the adapter as golden images, its text as labels, and adapters are shared.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.errors import DataError
from vptkit.regular_files import is_folder
from vptkit.shown_text import tell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vptkit.images.image_file import ImageFile

__all__ = ["inside_of", "require_inside"]


def inside_of(data: Path, *, allow_outside: bool = False) -> str | None:
    """Where the files of a data set must lie, for `vptkit.regular_files.open_regular`.

    `require_inside` asks for all of them at once, by name, so that nothing is read of a set that is
    refused; a name may mean another file when it is opened.

    Args:
        data, allow_outside: of `require_inside`.

    Returns:
        A folder without links, with a slash at its end; None for anywhere.
    """
    if allow_outside:
        return None
    folder = data if is_folder(data) else data.parent
    return os.path.join(os.path.realpath(folder), "")  # noqa: PTH118 -- with a slash at its end


def require_inside(
    data: Path, files: Iterable[ImageFile | Path], *, allow_outside: bool = False
) -> None:
    """Refuse files of a data set that lie elsewhere, before any of them is read.

    Args:
        data: what the user named: a folder, or a file, which itself may be anywhere. Either may be
            a link.
        files: what it is said to consist of. Images in archives are passed over: their archives are
            asked about themselves.
        allow_outside: take them all the same, and say how many there are.

    Raises:
        DataError: some lie outside of the folder.
    """
    outside = _outside(
        str(inside_of(data)), [file for file in files if isinstance(file, Path) and file != data]
    )
    if not outside:
        return
    first = next(iter(outside))
    lie = "1 file lies" if len(outside) == 1 else f"{len(outside)} files lie"
    where = f"{data}: {lie} outside of this data set, the first is {first}"
    if str(first) != outside[first]:
        where += f" (in truth {outside[first]})"
    if allow_outside:
        tell(f"note: {where}")
        return
    raise DataError(
        f"{where}. What is read there may be shared with an adapter. If that is right, pass "
        "--allow-outside."
    )


def _outside(inside: str, files: Iterable[Path]) -> dict[Path, str]:
    """File → where it really is, for those that are not below the folder."""
    parents: dict[Path, str] = {}
    found = {}
    for file in files:
        parent = file.parent
        if parent not in parents:
            parents[parent] = os.path.realpath(parent)
        place = f"{parents[parent]}/{file.name}"
        if file.name == ".." or file.is_symlink():
            place = os.path.realpath(file)
        if not place.startswith(inside):
            found[file] = place
    return found
