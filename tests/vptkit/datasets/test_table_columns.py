from __future__ import annotations

import pytest

from vptkit.datasets.table_columns import Columns, columns_of, parse_columns
from vptkit.errors import DataError


def test_the_option():
    assert parse_columns("image=a b, label=c,split=") == {"image": "a b", "label": "c", "split": ""}
    assert parse_columns(None) == parse_columns("") == {}
    for text in ("image", "image=", "picture=a", "label=a,label=b", "image=a,", "a=b=c,"):
        with pytest.raises(DataError, match=r"--columns: .*expected image=NAME,label=NAME"):
            parse_columns(text)


def test_our_own_names_are_meant_wherever_they_stand():
    names = ["id", "image", "Path ", "class", "label", "set", "split"]
    assert columns_of("x.csv", names, {}) == Columns("Path ", "label", "split")
    assert columns_of("x.csv", names, {"image": "id", "label": "class", "split": ""}) == Columns(
        "id", "class", None
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["image", "image_id", "label"],
            "image and image_id may both be the image.*image=image,label=label",
        ),
        (["image", "class", "target"], "class and target may both be the label.*label=class"),
        (
            ["image", "label", "set", "subset"],
            "set and subset may both .*image=image,label=label,split=set",
        ),
        (["id", "img", "file", "label"], "id and img and file may all be the image"),
        (["path", "path", "label"], "path and path may both"),
        (
            ["author", "label"],
            "no column of images is known.*image=NAME,label=label.*author, label$",
        ),
        (["image", "author"], "no column of labels is known.*image=image,label=NAME"),
    ],
)
def test_a_question_shows_the_answer(names, message):
    with pytest.raises(DataError, match=f"x.csv: .*{message}"):
        columns_of("x.csv", names, {})


def test_capitals_tell_where_names_differ_in_nothing_else():
    assert columns_of("x.csv", ["ID", "id", "label"], {"image": "id"}).image == "id"
