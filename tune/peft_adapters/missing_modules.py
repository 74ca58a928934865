"""Modules that a configuration of PEFT means and a file has nothing of: a part of it is lost."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vptkit.formats.backbone_weights import is_head

from .adapter_folder import targets, untargeted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vptkit.tune.foreign_tensors.module_names import Names

__all__ = ["missing_modules"]

_MOST_OTHERS = 50  # targets that the file has nothing of, looked for in the backbone
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def missing_modules(names: Names, found: Iterable[str], config: Mapping[str, Any]) -> list[str]:
    """The same modules of other blocks, and other modules of a list of targets.

    Args:
        names: of the backbone.
        found: the modules that the file has tensors of, by its names.
        config: PEFT's.

    Returns:
        The stranger's names. Of a pattern only blocks can be missing, not all modules of a name:
        a pattern may mean what the backbone does not have.
    """
    there = {name: part for name in found if (part := names.module(name)) is not None}
    covered = set(there.values())
    likes = {_NUMBER.sub(str(i), name, count=1) for name in there for i in range(names.depth)}
    befores = {before for name in likes | set(there) for before in _befores(name)}
    for target in untargeted(config.get("target_modules"), there)[:_MOST_OTHERS]:
        likes |= {before + target for before in befores}
    return sorted(
        name
        for name in likes
        if (part := names.module(name)) is not None
        and part not in covered
        and not is_head(part.name)
        and targets(name, config)
    )


def _befores(name: str) -> list[str]:
    """What may stand before a module beside this one: "", "a.", "a.b." of a.b.c."""
    parts = name.split(".")
    return ["".join(f"{part}." for part in parts[:i]) for i in range(len(parts))]
