"""What somebody meant."""

from __future__ import annotations

import pytest

from vptkit.cli.command_line.suggestions import command_meant, option_meant

COMMANDS = (
    "tune",
    "export",
    "build",
    "run",
    "eval",
    "check",
    "inspect",
    "profile",
    "devices",
    "bank",
)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("predict", "run"),
        ("train", "tune"),
        ("fit", "tune"),
        ("val", "eval"),
        ("validate", "eval"),
        ("test", "eval"),
        ("benchmark", "profile"),
        ("convert", "export"),
        ("compile", "export"),
        ("info", "inspect"),
        ("show", "inspect"),
        ("exprot", "export"),
        ("Tune", "tune"),
        ("prof", "profile"),
        ("tran", "tune"),
        ("device", "devices"),
        ("list", "bank list"),
    ],
)
def test_commands(word, meant):
    assert meant in command_meant(word, COMMANDS, [])[:2]


def test_a_file_in_the_place_of_the_command(tmp_path):
    assert command_meant("x.vptk", COMMANDS, ["photos"]) == ["run"]
    assert command_meant("x.vptk", COMMANDS, [])[0] == "inspect"
    assert command_meant("x.safetensors", COMMANDS, [])[0] == "export"
    assert command_meant(str(tmp_path), COMMANDS, []) == ["tune"]
    assert command_meant("x\0y" * 9, COMMANDS, []) == []


def test_only_what_there_is():
    assert command_meant("predict", ("add", "list"), []) == []
    assert command_meant("", COMMANDS, []) == []


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--weihgts", "--weights"),
        ("-weights", "--weights"),
        ("--image_size", "--image-size"),
        ("--imgsz", "--image-size"),
        ("--ep", "--epochs"),
        ("--learning-rate", "--lr"),
        ("--size", "--image-size"),
        ("--zzz", None),
    ],
)
def test_options(word, meant):
    known = ("-o", "--output", "--weights", "--image-size", "--epochs", "--lr")
    assert option_meant(word, known)[:1] == ([meant] if meant else [])
