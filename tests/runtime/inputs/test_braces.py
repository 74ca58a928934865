from __future__ import annotations

import pytest

from vptkit.errors import DataError
from vptkit.runtime.inputs.braces import expanded, has_braces


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a{08..11}.tar", ["a08.tar", "a09.tar", "a10.tar", "a11.tar"]),
        ("{9..11}", ["9", "10", "11"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{0..00}x", ["00x"]),
        ("{a,b}/{1..2}", ["a/1", "a/2", "b/1", "b/2"]),
        ("{a,}.jpg", ["a.jpg", ".jpg"]),
        ("x{}{1}{..}.jpg", ["x{}{1}{..}.jpg"]),
        ("{a{1..2}", ["{a1", "{a2"]),
    ],
)
def test_braces(text, expected):
    assert list(expanded(text)) == expected
    assert has_braces(text) == (expected != [text])


def test_more_than_any_data_set_has():
    with pytest.raises(DataError, match="more than 1,000,000 names"):
        list(expanded("{0..999999999999999999}"))
    with pytest.raises(DataError, match="more than 1,000,000 names"):
        list(expanded("{0..9999}{0..9999}"))
