"""What a board may say, message by message. Another machine's words are checked before use.

A message is a JSON object on a line of its own that has exactly the keys of its kind. A board that
was taken over, or a program there that talks in between, must not end in a traceback here, nor fill
the memory.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from vptkit.errors import TargetError
from vptkit.strict_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Shape = Callable[[Any], bool]

__all__ = ["MOST_LINE", "read_message"]

MOST_LINE = 64 << 20  # bytes of a line; a profile of a thousand rows has two million
_MOST_ROWS = 10_000
_LARGEST = 1e15  # of a number: bytes of a disk, at most
_DIGEST = re.compile(r"[0-9a-f]{64}")


def read_message(line: bytes, kinds: tuple[str, ...], host: str) -> dict[str, Any]:
    """A message, if it is of one of the kinds that are expected.

    Args:
        line: it.
        kinds: of KINDS.
        host: for messages.

    Raises:
        TargetError: it is not JSON, of another kind, or not of the shape of its kind.
    """
    message = parse_json(line, f"{host}: a message from there", TargetError)
    for kind in kinds:
        shape = KINDS[kind]
        if set(message) == set(shape):
            wrong = [key for key, fits in shape.items() if not fits(message[key])]
            if not wrong:
                return message
            raise TargetError(f"{host}: sent a {kind} message whose {wrong[0]} is malformed")
    shown = json.dumps(sorted(message))[:200]
    raise TargetError(f"{host}: sent a message of {shown}, expected {' or '.join(kinds)}")


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST


def _status(value: Any) -> bool:
    return type(value) is int and -256 < value < 256


def _digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _none_or(shape: Shape) -> Shape:
    return lambda value: value is None or shape(value)


def _list_of(shape: Shape) -> Shape:
    return lambda value: isinstance(value, list) and all(map(shape, value))


def _object(required: Mapping[str, Shape], optional: Mapping[str, Shape] | None = None) -> Shape:
    """An object with these keys; what else it has is not looked at, only passed on."""

    def fits(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and all(key in value and shape(value[key]) for key, shape in required.items())
            and all(shape(value[k]) for k, shape in (optional or {}).items() if k in value)
        )

    return fits


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_text, value.values()))


_MAYBE = _none_or(_number)
_QUANTILES = _object({"p50": _number, "p90": _number, "p99": _number})
_ROW = _object(
    {
        "name": _text,
        "kind": lambda value: value in ("adapter", "baseline"),
        "backend": _text,
        "batch": _count,
        "ms": _QUANTILES,
        "images_per_s": _MAYBE,
        "count": _count,
        "settled": _flag,
        "path": _none_or(_text),
        "memory_mb": _none_or(
            _object({"increase": _MAYBE, "device": _MAYBE}, {"unavailable": _none_or(_text)})
        ),
        "ratio": _none_or(
            _object(
                {"to": _text, "value": _number, "low": _number, "high": _number, "verdict": _text}
            )
        ),
    },
    {
        "precision": _none_or(_text),
        "portions": _count,
        "transfers": _text,
        "power_mode": _none_or(_text),
        "unsteady": _none_or(_list_of(_text)),
        "times": _none_or(
            _object({}, dict.fromkeys(("enqueue", "gpu", "host"), _none_or(_QUANTILES)))
        ),
        "streams": _none_or(_object({"count": _count, "images_per_s": _MAYBE})),
        "energy": _none_or(
            _object(
                {},
                {
                    "joules_per_image": _MAYBE,
                    "watts": _MAYBE,
                    "idle_watts": _MAYBE,
                    "source": _none_or(_text),
                    "unavailable": _none_or(_text),
                },
            )
        ),
    },
)
_MACHINE = _object(
    {
        "versions": _texts,
        "cpu": _none_or(_text),
        "arch": _none_or(_text),
        "session_threads": _count,
        "load": _MAYBE,
    },
    {"gpu": _none_or(_object({"name": _text}))},
)
_PROFILE = _object(
    {"rows": _list_of(_ROW), "machine": _MACHINE},
    {"sweep": _object({"skipped": _list_of(_object({"name": _text, "reason": _text}))})},
)


def _profile(value: Any) -> bool:
    """A document of `benchmark.profile`, as what shows it takes it for granted."""
    if not _PROFILE(value) or not 0 < len(value["rows"]) <= _MOST_ROWS:
        return False
    # Each group has one row that the others are compared with, and energy has its source.
    groups: dict[Any, bool] = {}
    for row in value["rows"]:
        energy = row.get("energy") or {}
        if energy.get("joules_per_image") is not None and energy.get("source") is None:
            return False
        group = row["batch"], row.get("power_mode")
        groups[group] = groups.get(group, False) or row["ratio"] is None
    return all(groups.values())


# Kind → its keys, and what each must be. `board_agent` and `profile_runner` write them.
KINDS: dict[str, dict[str, Shape]] = {
    "error": {"error": _object({"code": _status, "message": _text})},
    "greeting": {"python": _text, "packages": _list_of(_text), "free": _count},
    "missing": {"missing": _list_of(_digest)},
    "taken": {"taken": _count},
    "cleaned": {"freed": _count, "in_use": _count},
    "phase": {"phase": _text},
    "progress": {"total": _none_or(_count), "advance": _count, "text": _text},
    "document": {"document": _profile},
    "exit": {"exit": _status},
}
