"""What a document of a stranger's file may hold, as data; all of it is checked before any is used.

A `Kind` says of a value nothing if it fits, else where it does not and what was expected. Kinds are
put together as the document is:

    PLACE = record({"name": text(80), "size": integer(1, 512)}, {"note": text(1000)})
    require(document, PLACE, "place.json", BundleError)

Numbers, lengths and depths have bounds because they decide how much memory and time a reader takes.
"""

from __future__ import annotations

import math
import reprlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vptkit.errors import VptkitError

    # (value, its place in the document) → (place, what came, what was expected), or None if it fits
    Kind = Callable[[Any, str], "tuple[str, Any, str] | None"]

__all__ = [
    "abridged",
    "anything",
    "choice",
    "flag",
    "integer",
    "list_of",
    "mapping",
    "null_or",
    "number",
    "one_of",
    "record",
    "require",
    "text",
]


def require(
    value: Any, kind: Kind, source: object, error: type[VptkitError], place: str = ""
) -> None:
    """Refuse a value that is not of a kind.

    Args:
        value: from JSON, or from a dataclass.
        kind: what it may be.
        source: the file, for the message.
        error: what to raise.
        place: the value's own name.

    Raises:
        error: the first field that does not fit: its place, what came, what was expected.
    """
    problem = kind(value, place)
    if problem is not None:
        where, came, expected = problem
        raise error(f"{source}: {where or 'it'} is {abridged(came)}, expected {expected}")


def abridged(value: Any) -> str:
    """A value for a message, however large it is."""
    return _SHORT.repr(value)


class _Short(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        """Python writes no integer of thousands of digits, such as TOML's 0xfff… can be."""
        try:
            return super().repr_int(x, level)
        except ValueError:
            return "an integer too long to show"


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def text(most: int, *, least: int = 0, means: str = "", fits: Callable[[str], Any] = bool) -> Kind:
    """A string of so many letters, without halves of surrogate pairs.

    Args:
        most, least: letters.
        means: what it is, for the message.
        fits: says whether it is that.
    """
    expected = f"a text of {least} to {most} letters" + (f": {means}" if means else "")

    def kind(value: Any, place: str) -> tuple[str, Any, str] | None:
        right = (
            isinstance(value, str)
            and least <= len(value) <= most
            and (value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value))
            and (not means or fits(value))
        )
        return None if right else (place, value, expected)

    return kind


def integer(least: int, most: int) -> Kind:
    """A whole number; True is none."""
    expected = f"a whole number from {least} to {most}"

    def kind(value: Any, place: str) -> tuple[str, Any, str] | None:
        right = type(value) is int and least <= value <= most
        return None if right else (place, value, expected)

    return kind


def number(least: float, most: float) -> Kind:
    """A finite number; True is none."""
    expected = f"a number from {least:g} to {most:g}"

    def kind(value: Any, place: str) -> tuple[str, Any, str] | None:
        right = type(value) in (int, float) and least <= value <= most and math.isfinite(value)
        return None if right else (place, value, expected)

    return kind


def flag() -> Kind:
    """True or false."""
    return lambda value, place: None if type(value) is bool else (place, value, "true or false")


def choice(*values: str) -> Kind:
    """One of some words."""
    words = (value or repr(value) for value in values)  # of an empty one nothing would be seen
    expected = f"one of {', '.join(words)}"

    def kind(value: Any, place: str) -> tuple[str, Any, str] | None:
        right = isinstance(value, str) and value in values
        return None if right else (place, value, expected)

    return kind


def null_or(inner: Kind) -> Kind:
    """None, or a kind."""

    def kind(value: Any, place: str) -> tuple[str, Any, str] | None:
        problem = None if value is None else inner(value, place)
        return problem and (problem[0], problem[1], f"null or {problem[2]}")

    return kind


def one_of(*kinds: Kind) -> Kind:
    """The first of some kinds that fits."""

    def kind(value: Any, place: str) -> tuple[str, Any, str] | None:
        problems = [problem for inner in kinds if (problem := inner(value, place))]
        if len(problems) < len(kinds):
            return None
        return place, value, " or ".join(problem[2] for problem in problems)

    return kind


def list_of(inner: Kind, most: int, *, least: int = 0) -> Kind:
    """A list (or tuple) of so many values of a kind."""

    def kind(value: Any, place: str) -> tuple[str, Any, str] | None:
        if not isinstance(value, (list, tuple)) or not least <= len(value) <= most:
            return place, value, f"a list of {least} to {most}"
        for i, one in enumerate(value):
            if inner(one, "") is not None:
                return inner(one, f"{place}[{i}]")
        return None

    return kind


def mapping(key: Kind, inner: Kind, most: int) -> Kind:
    """An object whose keys are not known beforehand."""

    def kind(value: Any, place: str) -> tuple[str, Any, str] | None:
        if not isinstance(value, dict) or len(value) > most:
            return place, value, f"an object of at most {most} fields"
        for name, one in value.items():
            if key(name, "") or inner(one, ""):
                return key(name, f"a name in {place}") or inner(one, f"{place}[{abridged(name)}]")
        return None

    return kind


def record(
    fields: Mapping[str, Kind],
    optional: Mapping[str, Kind] | None = None,
    *,
    others: Kind | None = None,
) -> Kind:
    """An object of these fields.

    Args:
        fields: that must be there.
        optional: that may be there.
        others: of what may be there besides, as a whole; without it nothing may.
    """
    known = {**fields, **(optional or {})}

    def kind(value: Any, place: str) -> tuple[str, Any, str] | None:
        if not isinstance(value, dict) or not set(fields) <= set(value):
            return place, value, f"an object with the fields {', '.join(fields)}"
        rest = {name: one for name, one in value.items() if name not in known}
        if rest and others is None:
            return place, min(map(str, rest)), f"one of the fields {', '.join(known)}"
        for name, inner in known.items():
            if name in value and inner(value[name], "") is not None:
                return inner(value[name], f"{place}.{name}".strip("."))
        return others(rest, place) if others is not None else None

    return kind


def anything(*, values: int, depth: int, letters: int) -> Kind:
    """Any JSON, for what is only passed on and shown.

    Args:
        values: at most, lists and objects counted too.
        depth: levels of lists and objects.
        letters: of each text and each name.
    """
    expected = f"JSON of at most {values} values, {depth} deep, texts of at most {letters} letters"
    word, figure = text(letters), number(-1e308, 1e308)

    def fits(value: Any, left: int, room: list[int]) -> bool:
        room[0] -= 1
        if room[0] < 0:
            return False
        if isinstance(value, (dict, list, tuple)):
            inner = value.values() if isinstance(value, dict) else value
            names = value if isinstance(value, dict) else ()
            return (
                left > 0
                and all(word(name, "") is None for name in names)
                and all(fits(one, left - 1, room) for one in inner)
            )
        if isinstance(value, str):
            return word(value, "") is None
        return value is None or type(value) is bool or figure(value, "") is None

    return lambda value, place: None if fits(value, depth, [values]) else (place, value, expected)
