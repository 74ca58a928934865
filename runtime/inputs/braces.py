"""Numbers and words in braces, as shards are named: `train-{000..146}.tar`, `{cats,dogs}.tar`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vptkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["expanded", "has_braces"]

_BRACES = re.compile(r"\{(?:(\d{1,18})\.\.(\d{1,18})|([^{}]*,[^{}]*))\}")
_MOST_NAMES = 1_000_000


def has_braces(text: str) -> bool:
    """Whether there is a range of numbers or a list of words in braces."""
    return _BRACES.search(text) is not None


def expanded(text: str) -> Iterator[str]:
    """Every name that braces stand for, in their order: the last ones change fastest.

    `{07..10}` counts with as many digits as it is written with, `{3..1}` downwards.

    Raises:
        DataError: that would be more than a million names.
    """
    parts: list[tuple[str, list[str] | range, int]] = []
    place, count = 0, 1
    for match in _BRACES.finditer(text):
        choices, width = _choices(match)
        parts.append((text[place : match.start()], choices, width))
        place, count = match.end(), count * len(choices)
        if count > _MOST_NAMES:
            raise DataError(f"{text}: stands for more than {_MOST_NAMES:,} names")
    yield from (found + text[place:] for found in _products(parts, len(parts)))


def _choices(match: re.Match[str]) -> tuple[list[str] | range, int]:
    """What a pair of braces stands for; numbers with the width that they are filled up to."""
    if match[3] is not None:
        return match[3].split(","), 0
    first, last = int(match[1]), int(match[2])
    step = 1 if first <= last else -1
    padded = any(len(text) > 1 and text.startswith("0") for text in (match[1], match[2]))
    return range(first, last + step, step), max(len(match[1]), len(match[2])) if padded else 0


def _products(parts: list[tuple[str, list[str] | range, int]], count: int) -> Iterator[str]:
    if not count:
        yield ""
        return
    before, choices, width = parts[count - 1]
    for start in _products(parts, count - 1):
        for choice in choices:
            yield f"{start}{before}{str(choice).zfill(width)}"
