"""JSON and TOML that a stranger may have written: only what the standard allows, or one clear error.

And JSON that is written here, which every reader takes.
"""

from __future__ import annotations

import json
import math
import re
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from vptkit.errors import VptkitError
from vptkit.regular_files import read_regular

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["canonical_json", "json_text", "parse_json", "read_toml"]

_MOST_SETTINGS = 1 << 20  # bytes of a TOML file
_DEPTH = 64  # levels of lists and objects; no format of ours has more than ten
# In JSON of ASCII: a pair of surrogates, half of one, or another escape
_ESCAPE = re.compile(r"\\(?:ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|u(d[89a-f][0-9a-f]{2})|.)")


def canonical_json(document: Any) -> str:
    """One text for one value: sorted keys, no spaces, ASCII, no NaN.

    Raises:
        ValueError: the document holds NaN or an infinity.
    """
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def json_text(document: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    r"""A document as all our commands write it: ASCII, no NaN, and no halves of surrogates.

    A name that is not UTF-8 has its odd bytes as the six letters \udcXX, as everywhere in what we
    write (`vptkit.shown_text.printable`): Unicode has no such characters, and strict readers of JSON
    refuse their escapes.

    Args:
        document: dicts, lists, texts, numbers.
        indent, sort_keys: of `json.dumps`.

    Raises:
        ValueError: the document holds NaN or an infinity.
    """
    text = json.dumps(document, indent=indent, sort_keys=sort_keys, allow_nan=False)
    return _ESCAPE.sub(_whole, text) if "\\ud" in text else text


def parse_json(text: str | bytes, source: object, error: type[VptkitError]) -> dict[str, Any]:
    """An object from its text.

    Args:
        text: UTF-8 if bytes.
        source: the file, for the message.
        error: what to raise.

    Raises:
        error: not JSON (the standard's: no NaN, no infinity, no number that becomes one, no key
            twice), no object, or lists and objects within each other more than 64 deep.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        document = json.loads(
            text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_once
        )
        _require_depth(document)
    except RecursionError as cause:
        raise error(f"{source}: not valid JSON (nested too deeply)") from cause
    except ValueError as cause:  # also UnicodeDecodeError, and integers of thousands of digits
        raise error(f"{source}: not valid JSON ({cause})") from cause
    if not isinstance(document, dict):
        kind = type(document).__name__
        raise error(f"{source}: not a JSON object but {kind}, expected {{…}}")
    return document


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file: settings, or the description of a board.

    Raises:
        VptkitError: it cannot be read, is larger than 1 MiB, or is not TOML.
    """
    if sys.version_info >= (3, 11):  # not before it is needed: the watchdog shall start fast
        import tomllib
    else:
        import tomli as tomllib
    content = read_regular(path, VptkitError, limit=_MOST_SETTINGS)
    try:
        entries: dict[str, Any] = tomllib.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise VptkitError(f"{path}: not valid TOML: nested too deeply") from error
    except ValueError as error:  # also UnicodeDecodeError, and integers of thousands of digits
        raise VptkitError(f"{path}: not valid TOML: {error}") from error
    return entries


def _whole(escape: re.Match[str]) -> str:
    """The escape; of half a pair, a backslash and the letters behind it."""
    return f"\\\\u{escape[1]}" if escape[1] else escape[0]


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:40]!r} is there twice")
        found[key] = value
    return found


def _require_depth(document: Any) -> None:
    level = [document]
    for _ in range(_DEPTH):
        level = [
            value
            for one in level
            if isinstance(one, (dict, list))
            for value in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise ValueError(f"nested more than {_DEPTH} deep")
