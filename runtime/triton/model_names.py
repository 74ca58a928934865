"""What a bundle is called on the server: its folder's name, if an address can hold it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vptkit.errors import VptkitError
from vptkit.formats.bundle_files import folder_name
from vptkit.shown_text import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = ["model_names"]

# A name is a folder, a part of an address (v2/models/NAME/infer) and a label of a metric.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_PARTS = ("_decode", "_graph", "_labels")  # what an ensemble adds to a name


def model_names(bundles: Sequence[Path]) -> dict[str, Path]:
    """Name of each model → its bundle.

    Raises:
        VptkitError: no bundle, a name that Triton's addresses cannot hold, or one given twice.
    """
    if not bundles:
        raise VptkitError("no bundle given: expected at least one folder NAME.vptk")
    found: dict[str, Path] = {}
    for path in bundles:
        name = folder_name(path)
        if not _NAME.fullmatch(name):
            raise VptkitError(
                f"{shown(path)}: Triton cannot serve a model of the name {name[:100]!r}: expected 1 "
                "to 100 letters, digits, '_', '-' and '.', a letter or digit first. Rename the "
                "folder."
            )
        if name in found:
            raise VptkitError(
                f"{shown(path)} and {shown(found[name])}: both would be the model {name!r}. Rename "
                "one of the folders."
            )
        found[name] = path
    _require_apart(found)
    return found


def _require_apart(names: Iterable[str]) -> None:
    """Refuse a name that a part of another model's ensemble has."""
    known = set(names)
    for name in known:
        taken = known & {f"{name}{part}" for part in _PARTS}
        if taken:
            raise VptkitError(
                f"the models {name!r} and {min(taken)!r}: the second is the name of a part of the "
                "first. Rename one of the folders."
            )
