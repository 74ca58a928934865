"""What a person would see: bars that were erased are gone, colours are noticed, nothing hangs."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("pyte")

from tests.support.children import Late
from tests.support.terminal import in_a_terminal


def seen(code: str, columns: int = 40, **settings):
    return in_a_terminal([sys.executable, "-c", code], columns=columns, **settings)


def test_what_was_overwritten_is_gone():
    found = seen("print('bar 50 %', end='\\r'); print('\\x1b[2Kdone'); raise SystemExit(3)")
    assert (found.text, found.status, found.coloured) == ("done\n", 3, False)


def test_lines_are_as_wide_as_the_window():
    found = seen("import os, sys; print('x' * 50, os.get_terminal_size().columns)")
    assert found.text == f"{'x' * 40}\n{'x' * 10} 40\n"
    assert seen("import sys; print(sys.stdin.isatty(), sys.stderr.isatty())").text == "True True\n"


def test_many_rows_are_kept():
    assert seen("print(*range(900), sep='\\n')").text.splitlines() == [str(i) for i in range(900)]


def test_colours_are_noticed():
    assert seen("print('\\x1b[31mred\\x1b[0m')").coloured


def test_who_never_ends_is_ended():
    with pytest.raises(Late):
        seen("import time; time.sleep(60)", limit=0.5)
