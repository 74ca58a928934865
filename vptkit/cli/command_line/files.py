"""Files and folders that fit a word, and names in them, for completion: quick, and never an error."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from vptkit.shown_text import shown

__all__ = ["adapters_of_bank", "backbones", "boards", "paths"]

_MOST_ENTRIES = 4000  # of a folder that are looked at
_MOST_SHOWN = 200
_MANIFEST_BYTES = 8 << 20
_NO_BOARDS = ("jetpacks", "latencies", "sources")  # further tables in their folder


def paths(begun: str, suffixes: tuple[str, ...]) -> list[str]:
    """Paths that begin so: folders with a "/" behind them, and files and bundles that fit.

    Args:
        begun: what was typed; "~" is the user's folder.
        suffixes: of the names that fit, as ".vptk"; none for all.
    """
    folder, name = os.path.split(begun)
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:  # noqa: PTH111
            found = [
                os.path.join(folder, entry.name) + ("/" if _is_way(entry) else "")  # noqa: PTH118
                for entry in itertools.islice(entries, _MOST_ENTRIES)
                if entry.name.startswith(name)
                and (name.startswith(".") or not entry.name.startswith("."))
                and (not suffixes or entry.name.endswith(suffixes) or entry.is_dir())
            ]
    except (OSError, ValueError):
        return []
    return sorted(path for path in found if shown(path) == path)[:_MOST_SHOWN]


def adapters_of_bank(bundle: str) -> list[str]:
    """The names of a bundle's adapters, from its manifest; none if it is not one."""
    from vptkit.errors import VptkitError
    from vptkit.regular_files import read_regular
    from vptkit.strict_json import parse_json

    path = Path(os.path.expanduser(bundle), "manifest.json")  # noqa: PTH111
    try:
        content = read_regular(path, VptkitError, limit=_MANIFEST_BYTES)
        entries = parse_json(content, path, VptkitError).get("adapters", [])
    except (VptkitError, OSError, ValueError):
        return []
    if not isinstance(entries, list):
        return []
    names = [entry.get("name") for entry in entries if isinstance(entry, dict)]
    return [name for name in names if isinstance(name, str) and name and shown(name) == name]


def backbones(table: Path | None = None) -> list[str]:
    """The names of backbones that export, from the table that ships; none if it does not."""
    from vptkit.errors import VptkitError
    from vptkit.regular_files import read_regular
    from vptkit.strict_json import parse_json

    file = table or Path(__file__).parents[2] / "assets" / "backbones.json"
    try:
        content = read_regular(file, VptkitError, limit=_MANIFEST_BYTES)
        return [str(row["name"]) for row in parse_json(content, file, VptkitError)["backbones"]]
    except (VptkitError, OSError, KeyError, TypeError):
        return []


def boards() -> list[str]:
    """The keys of all boards; their tables are not read."""
    import vptkit.devices.boards

    names = [path.stem for path in Path(vptkit.devices.boards.__path__[0]).glob("*.toml")]
    return sorted(name for name in names if name not in _NO_BOARDS)


def _is_way(entry: os.DirEntry[str]) -> bool:
    """A folder that one goes on into; a bundle is where one wanted to go."""
    return not entry.name.endswith(".vptk") and entry.is_dir()
