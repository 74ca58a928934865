"""Where this user's weights lie: digest of a backbone's tensors → path, in the user's own cache.

An adapter names its backbone's digest and no path; on the machine that tuned it the file is found
again by this list. It is a hint: whoever uses it compares the digest of what lies there. A list that
is damaged, or that others may have written, is as good as none.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

from vptkit.errors import VptkitError
from vptkit.part_files import part_of
from vptkit.private_files import open_private, private_folder, user_folder
from vptkit.regular_files import is_file, read_bounded
from vptkit.strict_json import parse_json

__all__ = ["remember_weights", "remembered_weights"]

_NAME = "weights.json"
_MOST_BYTES = 1 << 20
_MOST_PLACES = 200
_DIGEST = re.compile(r"[0-9a-f]{64}")


def remember_weights(digest: str, path: Path) -> None:
    """Note where weights lie, as the latest; says nothing where the cache cannot be written."""
    folder = _folder()
    places = {key: place for key, place in _places(folder).items() if key != digest}
    latest = dict([*places.items(), (digest, str(path.absolute()))][-_MOST_PLACES:])
    with contextlib.suppress(VptkitError, OSError, ValueError):
        private_folder(folder, VptkitError, remedy="")
        text = json.dumps(latest, indent=1)
        if len(text) <= _MOST_BYTES:
            with part_of(folder / _NAME) as part:  # of mode 0600, which nobody else may write
                part.write_text(text + "\n", encoding="ascii")
                part.replace(folder / _NAME)


def remembered_weights(digest: str | None) -> Path | None:
    """Where weights lay when they were last read, if a file is still there."""
    place = _places(_folder()).get(digest or "")
    return Path(place) if place is not None and is_file(Path(place)) else None


def _folder() -> Path:
    return user_folder("XDG_CACHE_HOME", ".cache") / "vptkit"


def _places(folder: Path) -> dict[str, str]:
    """What is noted; nothing of a list that is not this user's, or not whole."""
    try:
        with open_private(folder, _NAME, VptkitError) as stream:
            text = read_bounded(stream, folder / _NAME, VptkitError, limit=_MOST_BYTES)
        document = parse_json(text, folder / _NAME, VptkitError)
    except (VptkitError, OSError):
        return {}
    return {key: value for key, value in document.items() if _is_place(key, value)}


def _is_place(digest: str, path: Any) -> bool:
    fits = isinstance(path, str) and path.startswith("/") and "\0" not in path
    return fits and len(path) < 4096 and _DIGEST.fullmatch(digest) is not None
