"""What lies near a name that does not exist: a slip in it, its suffix left out, another folder."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.regular_files import is_folder

from .path_kind import kind_of, names_below

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["lying_in", "near_paths"]

_MOST_SHOWN = 3
_MOST_FOLDERS = 50  # beside it, that are looked into
_MOST_LOOKS = 200  # at what lies in a folder


def near_paths(path: Path, kinds: Collection[str], suffix: str) -> list[Path]:
    """What was probably meant by a name that does not exist, the likeliest first.

    Args:
        path: that name.
        kinds: of `path_kind.Kind` that are wanted there.
        suffix: that such files usually have, as ".vptk".

    Returns:
        Up to three: the name with its suffix, or written a little otherwise; the same name in a
        folder beside it, or above.
    """
    folder, names = path.parent, _with_suffix(path.name, suffix)
    same = [folder / name for name in names]
    beside = [folder / name for name in names_below(folder)]
    places = [*filter(is_folder, beside[:_MOST_LOOKS])][:_MOST_FOLDERS]
    above = folder.parent if folder.name not in ("", "..") else Path("..") / folder
    places.append(above)
    elsewhere = [place / name for place in places for name in names]
    close = _written_otherwise(path.name, beside, suffix)
    found = [one for one in (*same, *close, *elsewhere) if one != path]
    return [one for one in dict.fromkeys(found) if kind_of(one).kind in kinds][:_MOST_SHOWN]


def lying_in(folder: Path, kinds: Collection[str]) -> list[Path]:
    """Up to three things of some kinds in a folder."""
    found: list[Path] = []
    for name in names_below(folder)[:_MOST_LOOKS]:
        if kind_of(folder / name).kind in kinds:
            found.append(folder / name)
        if len(found) == _MOST_SHOWN:
            break
    return found


def _with_suffix(name: str, suffix: str) -> list[str]:
    """The name, and with the suffix where it has none or another."""
    stem = name[: -len(Path(name).suffix)] if Path(name).suffix else name
    return [*dict.fromkeys((name, f"{name}{suffix}", f"{stem}{suffix}"))] if name else []


def _written_otherwise(name: str, beside: list[Path], suffix: str) -> list[Path]:
    """What is called nearly so, whatever the case of its letters."""
    by_name = {path.name.lower(): path for path in beside}
    by_stem = {path.name.lower().removesuffix(suffix): path for path in beside}
    wanted = name.lower()
    near = [by_name[key] for key in difflib.get_close_matches(wanted, by_name, cutoff=0.75)]
    stem = wanted.removesuffix(suffix)
    return near + [by_stem[key] for key in difflib.get_close_matches(stem, by_stem, cutoff=0.75)]
