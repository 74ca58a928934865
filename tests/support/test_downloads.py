"""The tests' own downloads: half a folder is never taken for a whole one, failures have words."""

from __future__ import annotations

import sys

import pytest

from tests.support.downloads import Unavailable, cache_folder, call, staged


def test_a_folder_appears_when_it_is_whole(tmp_path):
    kept = tmp_path / "cache" / "kept"
    with staged(kept) as stage:
        (stage / "file").write_text("whole")
        assert not kept.exists()
    assert (kept / "file").read_text() == "whole"
    assert list(kept.parent.iterdir()) == [kept]


def test_a_failure_leaves_nothing(tmp_path):
    kept = tmp_path / "kept"

    def fill() -> None:
        with staged(kept) as stage:
            (stage / "file").write_text("half")
            raise Unavailable("no network")

    with pytest.raises(Unavailable, match="no network"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_stays(tmp_path):
    kept = tmp_path / "kept"
    with staged(kept) as slow:
        with staged(kept) as fast:
            (fast / "file").write_text("first")
        (slow / "file").write_text("second")
    assert (kept / "file").read_text() == "first"
    assert list(tmp_path.iterdir()) == [kept]


def test_a_failed_program_is_quoted():
    assert call(sys.executable, "-c", "print(3)") == "3\n"
    with pytest.raises(Unavailable, match=r"^out of luck \(python.* ended with 4\)"):
        call(sys.executable, "-c", "import sys; print('out of luck', file=sys.stderr); sys.exit(4)")
    with pytest.raises(Unavailable, match="no-such-program is not installed"):
        call("no-such-program")


def test_the_cache_can_be_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("VPTKIT_TEST_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("VPTKIT_TEST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "vptkit-tests"
