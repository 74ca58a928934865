"""`help`, `version`, and questions where a command or an option is none."""

from __future__ import annotations

import pytest

from tests.support.command_tree import COMMANDS
from vptkit import __version__
from vptkit.cli.command_line.classes import Command, Group


@pytest.mark.parametrize("name", COMMANDS)
def test_all_commands_have_these_classes(name):
    assert isinstance(COMMANDS[name], Group if hasattr(COMMANDS[name], "commands") else Command)


@pytest.mark.parametrize("line", [("-V",), ("version",), ("--version",)])
def test_version(vptkit, line):
    assert vptkit(*line) == (0, __version__ + "\n", "")


@pytest.mark.parametrize(
    ("line", "page"),
    [
        (("help",), ()),
        (("-h",), ()),
        (("help", "tune"), ("tune",)),
        (("tune", "-h"), ("tune",)),
        (("help", "bank", "add"), ("bank", "add")),
        (("bank", "help", "add"), ("bank", "add")),
        (("bank", "help"), ("bank",)),
        (("help", "help"), ()),
    ],
)
def test_help(vptkit, line, page):
    assert vptkit(*line) == vptkit(*page, "--help")


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (("predict", "x"), "No such command: predict. Did you mean run?"),
        (("help", "predict"), "No such command: predict. Did you mean run?"),
        (("devices", "lst"), "No such command: lst. Did you mean list?"),
        (("a.vptk", "b"), "A command comes first, as in: vptkit run a.vptk b"),
        (("run", "a", "b", "--bach", "1"), "No such option: --bach. Did you mean --batch?"),
        (("run", "a", "b", "-top-k", "1"), "No such option: -top-k. Did you mean --top-k?"),
        (("bank", "add", "--weights", "x"), "It is an option of vptkit tune, vptkit export"),
        (("--wersion",), "No such option: --wersion. Did you mean --version?"),
    ],
)
def test_what_was_meant(vptkit, line, answer):
    code, out, err = vptkit(*line)
    assert (code, out) == (2, "")
    assert answer in err


def test_older_spellings_are_not_suggested(vptkit):
    assert "Did you mean --output?" in vptkit("analyze", "a", "b", "--outp", "x")[2]
    assert "--batch-size" not in vptkit("tune", "a", "--batc", "1")[2]
