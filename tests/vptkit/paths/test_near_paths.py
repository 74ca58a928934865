"""What lies near a name that does not exist."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from vptkit.paths.near_paths import lying_in, near_paths

ONE = {"x": np.ones(1, np.float32)}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "n").mkdir()
    for name in ("flowers.safetensors", "Birds.safetensors", "n/deep.safetensors"):
        save_file(ONE, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("flowers", "flowers.safetensors"),
        ("flowers.vptk", "flowers.safetensors"),
        ("flower.safetensors", "flowers.safetensors"),
        ("birds", "Birds.safetensors"),
        ("deep", "n/deep.safetensors"),
        ("n/flowers.safetensors", "flowers.safetensors"),
    ],
)
def test_finds_what_was_meant(folder, typed, found):
    assert near_paths(folder / typed, {"weights"}, ".safetensors")[0] == folder / found


def test_of_another_kind_nothing(folder):
    assert near_paths(folder / "flowers", {"bundle"}, ".vptk") == []


@pytest.mark.parametrize("typed", ["", "x" * 300, "a/" * 3000, "nothing/at/all"])
def test_any_name_is_borne(folder, typed):
    assert near_paths(folder / typed, {"bundle"}, ".vptk") == []


def test_lists_at_most_three(folder):
    assert lying_in(folder, {"weights"}) == [
        folder / "Birds.safetensors",
        folder / "flowers.safetensors",
    ]
    for i in range(9):
        save_file(ONE, folder / f"{i}.safetensors")
    assert len(lying_in(folder, {"weights"})) == 3
