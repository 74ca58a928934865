"""The labels in a cell, and which separator is meant."""

from __future__ import annotations

import pytest

from vptkit.datasets.label_cells import (
    is_uncertain,
    labels_in,
    require_one_label,
    separator_of,
    yes_or_no,
)
from vptkit.errors import DataError


@pytest.mark.parametrize(
    ("cells", "asked", "expected"),
    [
        (["cat;dog", "cat", ""], {}, ";"),
        (["big cat|dog", "cat"], {}, "|"),
        (["cat, dog", "cat"], {}, ","),
        (["cat", "dog"], {}, ""),
        (['["cat, big", "dog"]', "cat;dog"], {}, ";"),
        (["clear primary"], {"separator": "space"}, " "),
        (["clear primary"], {"separator": "none"}, ""),
        (["a;b", "a,b"], {"separator": "Comma"}, ","),
        (["a;b", "a,b"], {"separator": ";"}, ";"),
    ],
)
def test_the_separator_of_a_table(cells, asked, expected):
    assert separator_of("x.csv", cells, asked) == expected


@pytest.mark.parametrize(
    ("cells", "asked", "message"),
    [
        (["a;b", "a,b"], {}, r"by ; or by ,, as in 'a;b'\. Say --columns separator="),
        (["clear primary"], {}, r"'clear primary' may be one label or several\. Say --columns"),
        (["a"], {"separator": "x"}, r"separator=x, expected one of ;, \|, semicolon, pipe"),
    ],
)
def test_a_separator_that_nothing_tells(cells, asked, message):
    with pytest.raises(DataError, match=message):
        separator_of("x.csv", cells, asked)


@pytest.mark.parametrize(
    ("cell", "separator", "expected"),
    [
        (" cat ; dog;cat; ", ";", ("cat", "dog")),
        ("cat;dog", "", ("cat;dog",)),
        ('["cat", "big; dog"]', ";", ("cat", "big; dog")),
        ("[]", "", ()),
        ("", ";", ()),
        ([1, 3, 1], "", (1, 3)),
        (2, "", (2,)),
        (None, ",", ()),
    ],
)
def test_the_labels_of_a_cell(cell, separator, expected):
    assert labels_in("x.csv: line 2", cell, separator) == expected


@pytest.mark.parametrize("cell", ["['cat']", "[1.5]", [["cat"]], [True], {"cat": 1}, 0.5])
def test_what_is_no_list_of_labels(cell):
    with pytest.raises(DataError, match=r"x\.csv: line 2"):
        labels_in("x.csv: line 2", cell, "")


def test_yes_no_and_unknown():
    assert all(yes_or_no(cell) is True for cell in ("1", "1.0", "TRUE", "yes", 1, True, 1.0))
    assert all(yes_or_no(cell) is False for cell in ("0", "", " ", "False", "no", 0, False, None))
    odd = ("-1", "-1.0", "nan", "u", -1, float("nan"), "?")
    assert all(yes_or_no(cell) is None and is_uncertain(cell) for cell in odd)
    assert yes_or_no("0.5") is None
    assert not is_uncertain("0.5")


def test_cells_that_are_several_labels_need_the_task():
    with pytest.raises(DataError, match=r"line 4 has 2 labels \(cat, dog\); .*--task multilabel"):
        require_one_label("x.csv", {"cat": 2, "dog": 3, "cat;dog": 4}, {})
    with pytest.raises(DataError, match=r"line 2 has 2 labels \(a, b\); .*--task multilabel"):
        require_one_label("x.csv", {'["a", "b"]': 2}, {})
    require_one_label("x.csv", {"cat": 2, "salt;pepper": 3}, {})
    require_one_label("x.csv", {"cat": 2, "dog": 3, "cat;dog": 4}, {"separator": "none"})
