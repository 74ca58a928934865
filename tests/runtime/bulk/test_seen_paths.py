from __future__ import annotations

import contextlib
from pathlib import Path

from vptkit.runtime.bulk.seen_paths import SeenPaths


def test_each_path_is_new_once():
    with contextlib.closing(SeenPaths()) as seen:
        names = [f"{i}\udcff\n{i}" for i in range(2000)]
        assert "x" not in seen
        assert all(seen.add(name) for name in names)
        assert not any(seen.add(Path(name)) for name in names)
        assert Path(names[7]) in seen
        assert "x" not in seen


def test_any_text_is_known_again():
    with contextlib.closing(SeenPaths()) as seen:
        names = ["\ud800", "\udcff", "\x00", "ü", "", "u\u0308"]
        assert [seen.add(name) for name in [*names, *names]] == [True] * 6 + [False] * 6
