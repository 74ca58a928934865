"""Thrift's compact protocol: what is read of it, and what is refused."""

from __future__ import annotations

import re

import pytest

from vptkit.arrow_files import thrift_compact
from vptkit.arrow_files.thrift_compact import Compact

# 1: 3, 2: true, 3: "ab", 4: [{1: -1}, {}], 6: a double, 7: {1: {}} as a map of bytes to structs
WHOLE = bytes.fromhex("1506 11 18026162 192c 150100 00 27 0000000000000000 1b 01 3c 01 00 00")


def test_what_is_read():
    reader = Compact(WHOLE + b"rest", "x")
    assert reader.struct() == {1: 3, 3: b"ab", 4: [{1: -1}, {}]}
    assert reader.place == len(WHOLE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x15" * 3, "does not end"),
        (b"\x15" + b"\xff" * 20, "a number without an end"),
        (b"\x1c" * 50, "nested too deeply"),
        (b"\x19" + b"\x19" * 50, "nested too deeply"),
        (b"\x19\xfc\x7f", "does not end"),
        (b"\x18\x7f", "does not end"),
        (b"\x1d", "what none has"),
        (b"", "does not end"),
        (b"\x15\x02\x05\x02\x04\x00", "a field twice"),
        (b"\x15\x02\x05\x82\x80\x08\x04\x00", "a field twice, or one that none has"),
    ],
)
def test_what_is_none(content, message):
    with pytest.raises(ValueError, match=re.escape(f"the header {message}"[:11])) as caught:
        Compact(content, "the header").struct()
    assert message in str(caught.value)


def test_very_many_parts(monkeypatch):
    monkeypatch.setattr(thrift_compact, "_MOST_PARTS", 100)
    with pytest.raises(ValueError, match="more than 100 parts"):
        Compact(b"\x19\xfc\xc8\x01" + bytes(400), "x").struct()
