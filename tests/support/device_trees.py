"""File trees of boards in the formats that they are known to have; each is one TOML file.

`tests/support/trees/NAME.toml` maps paths to contents. Nothing was captured by us: each file says
where its strings come from.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["TREES", "plant"]

FOLDER = Path(__file__).parent / "trees"
TREES = sorted(path.stem for path in FOLDER.glob("*.toml"))


def plant(name: str, root: Path, **changes: str | None) -> Path:
    """Write a tree below `root`, and return it.

    `changes` replace files (their paths with __ for /), or remove them where they are None.
    """
    files = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    files |= {path.replace("__", "/"): text for path, text in changes.items()}
    for path, text in files.items():
        if text is None:
            (root / path).unlink(missing_ok=True)
            continue
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return root
