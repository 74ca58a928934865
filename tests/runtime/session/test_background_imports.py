"""Modules are there at the end of the block; what cannot be imported is left to whoever needs it."""

from __future__ import annotations

import sys
import threading

import pytest

from vptkit.runtime.session.background_imports import importing


def test_they_are_imported_meanwhile(tmp_path, monkeypatch):
    (tmp_path / "soon_needed.py").write_text("import threading\nBY = threading.current_thread()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with importing("no_such_module", "soon_needed"):
        pass
    assert sys.modules.pop("soon_needed").BY is not threading.current_thread()


@pytest.mark.parametrize("content", ["1 / 0", "raise ImportError", "def f(:"])
def test_a_broken_module_is_no_error_yet(tmp_path, monkeypatch, capfd, content):
    (tmp_path / "broken_soon.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with importing("broken_soon"):
        pass
    assert "broken_soon" not in sys.modules
    assert capfd.readouterr() == ("", "")


def test_an_error_of_the_block_goes_through():
    with pytest.raises(KeyboardInterrupt), importing("json"):
        raise KeyboardInterrupt
