"""A profile that was saved is read back; what a stranger wrote is refused by field."""

from __future__ import annotations

import copy
import json

import pytest

from vptkit.errors import DataError
from vptkit.runtime.profile.profile_file import read_profile

ROW = {
    "name": "a",
    "kind": "baseline",
    "backend": "cpu",
    "batch": 1,
    "ms": {"p50": 1.0, "p90": 2.0, "p99": 3.0, "mean": 1.2},
    "count": 20,
    "settled": True,
    "ratio": None,
    "something newer": [1],
}
MACHINE = {"arch": "aarch64", "session_threads": 6, "load": 0.1, "versions": {"vptkit": "0.1.0"}}
DOCUMENT = {"format": "vptkit.profile/1", "rows": [ROW], "machine": MACHINE, "state": {}}


@pytest.fixture
def saved(tmp_path):
    def save(document):
        path = tmp_path / "p.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    return save


def test_what_was_saved_is_read(saved):
    found = read_profile(saved(DOCUMENT))
    assert found["rows"] == [ROW]
    assert found["machine"]["cpu"] is None


def changed(*path, value):
    document = copy.deepcopy(DOCUMENT)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("format",), "vptkit.profile/9", "format"),
        (("rows",), [], "rows"),
        (("rows", 0, "kind"), "<script>", r"rows\[0\]\.?kind|kind"),
        (("rows", 0, "batch"), 0, "batch"),
        (("rows", 0, "ms"), {"p50": 1}, "p90"),
        (("rows", 0, "ms", "p50"), -1, "p50"),
        (("rows", 0, "distribution"), [[1]], "distribution"),
        (("rows", 0, "ratio"), {"to": "b"}, "ratio"),
        (("machine", "versions"), {"a": 1}, "versions"),
        (("machine", "gpu"), "L4", "gpu"),
    ],
)
def test_another_kind_is_named(saved, path, value, told):
    with pytest.raises(DataError, match=told) as caught:
        read_profile(saved(changed(*path, value=value)))
    assert "p.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": NaN}', "name  p50 ms\na  1.0"])
def test_no_profile(saved, text):
    with pytest.raises(DataError, match=r"p\.json"):
        read_profile(saved(text))


def test_no_file(tmp_path):
    with pytest.raises(DataError, match=r"no\.json"):
        read_profile(tmp_path / "no.json")


def test_rows_that_compare_with_nothing(saved):
    ratio = {"to": "x", "value": 1, "low": 1, "high": 1, "verdict": "faster"}
    document = DOCUMENT | {"rows": [ROW | {"ratio": ratio}, ROW | {"ratio": ratio, "name": "b"}]}
    with pytest.raises(DataError, match="compared with another"):
        read_profile(saved(document))
