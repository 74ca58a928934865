"""A command is proposed only where somebody typed one, with the right path in the same place."""

from __future__ import annotations

from pathlib import Path

import pytest

from vptkit.paths.command_line import command_with, other_words, remember, typed_command


@pytest.fixture(autouse=True)
def forgets():
    yield
    remember([])


def test_nobody_typed_anything():
    remember([])
    assert (typed_command(), other_words(Path("a")), command_with({Path("a"): "b"})) == (
        "",
        [],
        None,
    )


def test_one_path_for_another():
    remember(["run", "good/", "my photos", "--json"])
    assert typed_command() == "run"
    assert command_with({Path("good"): "good.vptk"}) == "vptkit run good.vptk 'my photos' --json"
    assert command_with({Path("other"): "x"}) is None


def test_two_are_swapped():
    remember(["run", "flat", "f.vptk"])
    swapped = command_with({Path("flat"): "f.vptk", Path("f.vptk"): "flat"})
    assert swapped == "vptkit run f.vptk flat"


def test_the_command_itself_is_no_path():
    remember(["run", "run", "x"])
    assert command_with({Path("run"): "run.vptk"}) == "vptkit run run.vptk x"


def test_a_long_one_is_not_repeated():
    remember(["run", "good", *["1.jpg"] * 100])
    assert command_with({Path("good"): "good.vptk"}) is None
