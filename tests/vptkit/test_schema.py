"""Kinds of values: what fits, and what is said of what does not."""

from __future__ import annotations

import pytest

from vptkit.errors import BundleError
from vptkit.schema import (
    abridged,
    anything,
    choice,
    flag,
    integer,
    list_of,
    mapping,
    null_or,
    number,
    one_of,
    record,
    require,
    text,
)

PLACE = record({"name": text(5, least=1), "sizes": list_of(integer(1, 9), 2)}, {"near": flag()})


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (text(3), ["", "abc", "äö€"]),
        (text(3, least=2, means="digits", fits=str.isdigit), ["12", "123"]),
        (integer(-1, 5), [-1, 0, 5]),
        (number(0, 1), [0, 1, 0.5]),
        (flag(), [True, False]),
        (choice("a", "b"), ["a", "b"]),
        (null_or(integer(1, 2)), [None, 1]),
        (one_of(integer(1, 2), choice("dynamic")), [1, "dynamic"]),
        (list_of(integer(1, 2), 2, least=1), [[1], (1, 2)]),
        (mapping(text(2), integer(0, 1), 2), [{}, {"a": 1, "bc": 0}]),
        (PLACE, [{"name": "x", "sizes": []}, {"name": "x", "sizes": [9], "near": True}]),
        (record({}, others=anything(values=3, depth=1, letters=1)), [{}, {"a": None}]),
        (anything(values=5, depth=2, letters=2), [None, "ab", 1.5, True, {"a": [1]}, [[], [], []]]),
    ],
)
def test_what_fits(kind, values):
    for value in values:
        require(value, kind, "x.json", BundleError)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (text(3), ["abcd", None, 3, b"ab", "\ud800"]),
        (text(3, least=2, means="digits", fits=str.isdigit), ["1", "1a"]),
        (integer(-1, 5), [-2, 6, 1.0, True, "1", None, 10**400]),
        (number(0, 1), [-0.1, 1.1, float("nan"), float("inf"), True, "0", 10**400]),
        (flag(), [0, 1, None, "true"]),
        (choice("a", "b"), ["c", None, ["a"], {}]),
        (null_or(integer(1, 2)), [3, ""]),
        (one_of(integer(1, 2), choice("dynamic")), [3, "static"]),
        (list_of(integer(1, 2), 2, least=1), [[], [1, 1, 1], [3], {1: 1}, "1"]),
        (mapping(text(2), integer(0, 1), 2), [[], {"abc": 1}, {"a": 2}, {"a": 0, "b": 0, "c": 0}]),
        (
            PLACE,
            [[], {"name": "x"}, {"name": "x", "sizes": [], "far": 1}, {"name": "", "sizes": []}],
        ),
        (record({}, others=anything(values=3, depth=1, letters=1)), [{"ab": 1}, {"a": [1]}]),
        (
            anything(values=5, depth=2, letters=2),
            ["abc", {"abc": 1}, [[[]]], [1] * 5, float("inf"), object(), {"a": float("nan")}],
        ),
    ],
)
def test_what_does_not_fit(kind, values):
    for value in values:
        with pytest.raises(BundleError, match=r"^x\.json: .* is .*, expected "):
            require(value, kind, "x.json", BundleError, "field")


def test_the_place_is_named():
    with pytest.raises(BundleError, match=r"sizes\[1\] is 10, expected a whole number from 1 to 9"):
        require({"name": "x", "sizes": [1, 10]}, PLACE, "x.json", BundleError)
    kind = record({"places": mapping(text(9), PLACE, 9)})
    document = {"places": {"here": {"name": "x", "sizes": [], "near": 1}}}
    with pytest.raises(BundleError, match=r"places\['here'\]\.near is 1, expected true or false"):
        require(document, kind, "x.json", BundleError)


def test_a_large_value_makes_a_short_message():
    assert len(abridged(["x" * 1000] * 1000)) < 1000
    assert len(abridged(10**4000)) < 100
