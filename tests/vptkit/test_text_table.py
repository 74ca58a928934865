"""Columns of text, and figures as they are printed."""

from __future__ import annotations

import pytest

from vptkit.text_table import milliseconds


@pytest.mark.parametrize(("time", "text"), [(0.0314, "0.031"), (0.999, "0.999"), (1.0, "1.00")])
def test_short_times_have_three_decimals(time, text):
    assert milliseconds(time) == text
