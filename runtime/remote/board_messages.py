"""What a board may say, message by message. Another machine's words are checked before use.

A message is a JSON object on a line of its own that has exactly the keys of its kind. A board that
was taken over, or a program there that talks in between, must not end in a traceback here, nor fill
the memory.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vptkit.errors import TargetError
from vptkit.formats.manifest_schema import DIGEST
from vptkit.schema import choice, flag, integer, list_of, mapping, null_or, number, record
from vptkit.strict_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vptkit.schema import Kind

__all__ = ["MOST_LINE", "read_message"]

MOST_LINE = 64 << 20  # bytes of a line; a profile of a thousand rows has two million
_MOST_ROWS = 10_000
_LARGEST = 10**15  # of a number: bytes of a disk, at most


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
            wrong = [key for key, kind_of in shape.items() if kind_of(message[key], key)]
            if not wrong:
                return message
            raise TargetError(f"{host}: sent a {kind} message whose {wrong[0]} is malformed")
    keys = json.dumps(sorted(message))[:200]
    raise TargetError(f"{host}: sent a message of {keys}, expected {' or '.join(kinds)}")


def _passed_on(value: Any, place: str) -> None:
    """What nobody here looks at; a line is bounded, and so is all in it."""


def _text(value: Any, place: str) -> tuple[str, Any, str] | None:
    """Any, also with halves of surrogates: the name of a file there need not be UTF-8."""
    return None if isinstance(value, str) else (place, value, "a text")


def _object(required: Mapping[str, Kind], optional: Mapping[str, Kind] | None = None) -> Kind:
    """An object with these keys; what else it has is not looked at, only passed on."""
    return record(required, optional, others=_passed_on)


def _list_of(kind: Kind) -> Kind:
    return list_of(kind, MOST_LINE)


_NUMBER = number(-_LARGEST, _LARGEST)
_COUNT = integer(0, _LARGEST)
_STATUS = integer(-255, 255)
_MAYBE = null_or(_NUMBER)
_QUANTILES = _object({"p50": _NUMBER, "p90": _NUMBER, "p99": _NUMBER})
_ROW = _object(
    {
        "name": _text,
        "kind": choice("adapter", "baseline"),
        "backend": _text,
        "batch": _COUNT,
        "ms": _QUANTILES,
        "images_per_s": _MAYBE,
        "count": _COUNT,
        "settled": flag(),
        "path": null_or(_text),
        "memory_mb": null_or(
            _object({"increase": _MAYBE, "device": _MAYBE}, {"unavailable": null_or(_text)})
        ),
        "ratio": null_or(
            _object(
                {"to": _text, "value": _NUMBER, "low": _NUMBER, "high": _NUMBER, "verdict": _text}
            )
        ),
    },
    {
        "precision": null_or(_text),
        "portions": _COUNT,
        "transfers": _text,
        "power_mode": null_or(_text),
        "unsteady": null_or(_list_of(_text)),
        "times": null_or(
            _object({}, dict.fromkeys(("enqueue", "gpu", "host"), null_or(_QUANTILES)))
        ),
        "streams": null_or(_object({"count": _COUNT, "images_per_s": _MAYBE})),
        "energy": null_or(
            _object(
                {},
                {
                    "joules_per_image": _MAYBE,
                    "watts": _MAYBE,
                    "idle_watts": _MAYBE,
                    "source": null_or(_text),
                    "unavailable": null_or(_text),
                },
            )
        ),
    },
)
_MACHINE = _object(
    {
        "versions": mapping(_text, _text, MOST_LINE),
        "cpu": null_or(_text),
        "arch": null_or(_text),
        "session_threads": _COUNT,
        "load": _MAYBE,
    },
    {"gpu": null_or(_object({"name": _text}))},
)
_PROFILE = _object(
    {"rows": list_of(_ROW, _MOST_ROWS, least=1), "machine": _MACHINE},
    {"sweep": _object({"skipped": _list_of(_object({"name": _text, "reason": _text}))})},
)


def _profile(value: Any, place: str) -> tuple[str, Any, str] | None:
    """A document of `benchmark.profile`, as what shows it takes it for granted."""
    problem = _PROFILE(value, place)
    if problem is None and not _fits_together(value["rows"]):
        return place, value, "the document of a profile"
    return problem


def _fits_together(rows: Sequence[Mapping[str, Any]]) -> bool:
    # Each group has one row that the others are compared with, and energy has its source.
    groups: dict[Any, bool] = {}
    for row in rows:
        energy = row.get("energy") or {}
        if energy.get("joules_per_image") is not None and energy.get("source") is None:
            return False
        group = row["batch"], row.get("power_mode")
        groups[group] = groups.get(group, False) or row["ratio"] is None
    return all(groups.values())


# Kind → its keys, and what each must be. `board_agent` and `profile_runner` write them.
KINDS: dict[str, dict[str, Kind]] = {
    "error": {"error": _object({"code": _STATUS, "message": _text})},
    "greeting": {"python": _text, "packages": _list_of(_text), "free": _COUNT},
    "missing": {"missing": _list_of(DIGEST)},
    "taken": {"taken": _COUNT},
    "cleaned": {"freed": _COUNT, "in_use": _COUNT},
    "phase": {"phase": _text},
    "progress": {"total": null_or(_COUNT), "advance": _COUNT, "text": _text},
    "document": {"document": _profile},
    "exit": {"exit": _STATUS},
}
