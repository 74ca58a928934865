from __future__ import annotations

import pytest

from vptkit.errors import DataError
from vptkit.runtime.inputs.lookup import Lookup, LostImage, NotFetchedError


def test_a_row_without_an_image_says_why():
    lost = LostImage("a/list.csv: line 3", "has no path")
    assert (str(lost), lost.name) == ("a/list.csv: line 3", "line 3")
    with pytest.raises(DataError, match=r"a/list\.csv: line 3: has no path"):
        lost.read_bytes()


def test_looks_share_nothing():
    one = Lookup()
    one.broken.append("x")
    one.skipped["y"] += 1
    assert not Lookup().broken
    assert not Lookup().skipped
    assert issubclass(NotFetchedError, DataError)
