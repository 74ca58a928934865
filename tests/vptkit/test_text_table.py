"""Columns of text, and figures as they are printed."""

from __future__ import annotations

import pytest

from vptkit.shown_text import terminal_width
from vptkit.text_table import columns, fields, milliseconds


@pytest.mark.parametrize(("time", "text"), [(0.0314, "0.031"), (0.999, "0.999"), (1.0, "1.00")])
def test_short_times_have_three_decimals(time, text):
    assert milliseconds(time) == text


def test_columns_are_as_wide_as_their_widest_cell():
    lines = columns(["name", "ms"], [["a", "1.25"], ["longer", "2"]]).splitlines()
    assert lines == ["name      ms", "a       1.25", "longer     2"]


def test_a_table_that_is_too_wide_becomes_several():
    header, rows = ["name", "n", "first", "second", "third"], [["a", "1", "2", "3", "4"]] * 2
    text = columns(header, rows, width=18, keys=2)
    assert [table.splitlines()[:2] for table in text.split("\n\n")] == [
        ["name  n  first", "a     1      2"],
        ["name  n  second", "a     1       3"],
        ["name  n  third", "a     1      4"],
    ]
    assert columns(header, rows, width=80) == columns(header, rows)
    assert len(columns(header, rows, width=1).split("\n\n")) == 4  # a key and one at least


def test_the_width_is_that_of_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "61")
    assert terminal_width() == 61


def test_nested_values_get_a_dot_and_long_ones_are_cut():
    text = fields({"a": {"b": 1.0, "c": None}, "d": [], "e": "x" * 30, "f": {}}, limit=10)
    assert text.splitlines() == ["a.b  1", "a.c  -", "d    -", "e    xxxxxxxxx…", "f    -"]


def test_a_cell_is_one_line_whatever_it_holds():
    table = columns(["name", "ms"], [["a\nb\x1b[2J", "1"], ["c\u2028d", "2"]])
    assert [line.split() for line in table.splitlines()] == [
        ["name", "ms"],
        [r"a\nb\x1b[2J", "1"],
        [r"c\u2028d", "2"],
    ]
    assert len({len(line) for line in table.splitlines()}) == 1
    text = fields({"a\nb": "c\x9bd", "e": {"f\r": ["\u202eg"]}})
    assert text.splitlines() == [r"a\nb   c\x9bd", r"e.f\r  \u202eg"]
