"""Tables of figures that say where they come from: how boards/*.toml is read.

A figure is written [value, source]. Its source is a name in sources.toml (several: "one, two"), or
a text that begins with "computed: " and gives the formula, or with "unverified: " and says why. So
no figure can be written without one. A key that is missing, unknown, of another type or out of its
range is an error that names the file and the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.errors import VptkitError
from vptkit.strict_json import read_toml

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FOLDER", "Figure", "Table", "open_table", "read_sources"]

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Figure:
    """A value, and where it comes from."""

    value: float | str
    source: str

    @property
    def verified(self) -> bool:
        """Somebody wrote it down, or it follows from what somebody wrote down."""
        return not self.source.startswith("unverified: ")

    def to_json(self) -> dict[str, Any]:
        """As `vptkit devices show --json` prints it."""
        return {"value": self.value, "source": self.source, "verified": self.verified}


class Table:
    """A table of a file, taken apart key by key; `end` refuses what is left over.

    Args:
        place: file and table, for messages.
        entries: the keys and values.
        sources: names that a source may have.
    """

    def __init__(self, place: str, entries: Mapping[str, Any], sources: Mapping[str, str]) -> None:
        self._place = place
        self._left = dict(entries)
        self._sources = sources

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def names(self) -> tuple[str, ...]:
        """Keys not taken yet."""
        return tuple(self._left)

    def wrong(self, key: str, problem: str) -> VptkitError:
        """The error for a key."""
        return VptkitError(f"{self._place}: {key}: {problem}")

    def text(self, key: str) -> str:
        """Take a text that is not empty."""
        value = self._take(key, str, "a text")
        if not value.strip():
            raise self.wrong(key, "is empty, expected a text")
        return str(value)

    def choice(self, key: str, known: tuple[str, ...]) -> str:
        """Take one of the texts `known`."""
        value = self.text(key)
        if value not in known:
            raise self.wrong(key, f"is {value!r}, expected {' or '.join(known)}")
        return value

    def flag(self, key: str) -> bool:
        """Take true or false."""
        return bool(self._take(key, bool, "true or false"))

    def number(self, key: str, low: float, high: float) -> int:
        """Take a whole number from `low` to `high`."""
        value = self._take(key, int, "a whole number")
        if isinstance(value, bool) or not low <= value <= high:
            raise self.wrong(key, f"is {value}, expected a whole number from {low:g} to {high:g}")
        return int(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """Take a list of texts."""
        values = self._take(key, list, "a list of texts")
        if not all(isinstance(value, str) and value for value in values):
            raise self.wrong(key, f"is {values!r}, expected a list of texts")
        return tuple(values)

    def source(self, key: str = "source") -> str:
        """Take a source."""
        return self._source(key, self.text(key))

    def figure(self, key: str, low: float, high: float) -> Figure:
        """Take a number from `low` to `high`, and its source."""
        value, source = self._pair(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(key, f"is {value!r}, expected a number")
        if not low <= value <= high:
            raise self.wrong(key, f"is {value:g}, expected {low:g} to {high:g} ({_unit(key)})")
        return Figure(value, source)

    def phrase(self, key: str) -> Figure:
        """Take a text and its source."""
        value, source = self._pair(key)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, f"is {value!r}, expected a text")
        return Figure(value, source)

    def phrases(self, key: str) -> tuple[Figure, ...]:
        """Take a list of texts with their sources."""
        pairs = self._take(key, list, "a list of [text, source]")
        table = Table(
            self._place, {f"{key} {i}": pair for i, pair in enumerate(pairs)}, self._sources
        )
        return tuple(table.phrase(name) for name in table.names())

    def pairs(self, key: str) -> list[tuple[float, float]]:
        """Take a list of pairs of positive numbers."""
        values = self._take(key, list, "a list of [number, number]")
        pairs = [tuple(pair) for pair in values if isinstance(pair, list) and len(pair) == 2]
        numbers = [n for pair in pairs for n in pair if type(n) in (int, float) and 0 < n < 1e9]
        if not values or len(numbers) != 2 * len(values):
            raise self.wrong(key, f"is {values!r}, expected a list of [number, number]")
        return [(float(one), float(other)) for one, other in pairs]

    def table(self, key: str) -> Table:
        """Take a table."""
        return Table(f"{self._place}: {key}", self._take(key, dict, "a table"), self._sources)

    def tables(self, key: str) -> list[Table]:
        """Take a list of tables."""
        entries = self._take(key, list, "a list of tables")
        if not all(isinstance(entry, dict) for entry in entries):
            raise self.wrong(key, "expected a list of tables")
        return [
            Table(f"{self._place}: {key} {i}", entry, self._sources)
            for i, entry in enumerate(entries)
        ]

    def end(self) -> None:
        """Refuse keys that nobody took."""
        for key in self._left:
            raise self.wrong(key, "is not known; spelt wrongly, or in the wrong table?")

    def _take(self, key: str, kind: type, expected: str) -> Any:
        if key not in self._left:
            raise self.wrong(key, f"is missing, expected {expected}")
        value = self._left.pop(key)
        if not isinstance(value, kind):
            raise self.wrong(key, f"is {value!r}, expected {expected}")
        return value

    def _pair(self, key: str) -> tuple[Any, str]:
        pair = self._take(key, list, "[value, source]")
        if len(pair) != 2 or not isinstance(pair[1], str):
            raise self.wrong(key, f"is {pair!r}, expected [value, source]")
        return pair[0], self._source(key, pair[1])

    def _source(self, key: str, source: str) -> str:
        kind, colon, reason = source.partition(": ")
        told = bool(colon) and kind in ("computed", "unverified") and bool(reason.strip())
        if not told and not set(source.split(", ")) <= set(self._sources):
            raise self.wrong(
                key,
                f'source {source!r} is no name of sources.toml, and does not begin with "computed: "'
                ' or "unverified: " and a reason',
            )
        return source


def open_table(name: str, folder: Path = FOLDER) -> Table:
    """Read NAME.toml.

    Args:
        name: of the file, without .toml.
        folder: where it lies, with sources.toml beside it.

    Raises:
        VptkitError: there is no such file, or it is not TOML.
    """
    return Table(f"{name}.toml", read_toml(folder / f"{name}.toml"), read_sources(folder))


@cache
def read_sources(folder: Path = FOLDER) -> dict[str, str]:
    """Name of a source → title and place.

    Raises:
        VptkitError: sources.toml holds anything else, or cannot be read.
    """
    table = Table("sources.toml", read_toml(folder / "sources.toml"), {})
    return {name: table.text(name) for name in table.names()}


def _unit(key: str) -> str:
    units = {"mhz": "MHz", "gb": "GB", "gbs": "GB/s", "tflops": "TFLOPS", "tops": "TOPS", "w": "W"}
    return units.get(key.rpartition("_")[2], "a count")
