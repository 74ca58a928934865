"""Plain values are what typer makes of them, and all others go to typer."""

import os
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.core import TyperCommand

from vptkit.cli.command_line.classes import Command
from vptkit.cli.command_line.plain_values import take_plain_values

LINES = [
    *([], ["--count", "8"], ["--count", "-1"], ["--count", "007"], ["--count", "+3"]),
    *(
        ["--count", "1_0"],
        ["--count", " 8 "],
        ["--count", "8.0"],
        ["--count", ""],
        ["--count", "٣"],
    ),
    *(["--count", "99"], ["--count", "0"], ["--count", "eight"], ["--count", "9" * 30]),
    *(["--share", "1"], ["--share", "-0.5"], ["--share", ".5"], ["--share", "1e-3"]),
    *(["--share", "nan"], ["--share", "inf"], ["--share", "2.5"], ["--share", "1,5"]),
    *(["--text", ""], ["--text", " ü "], ["--text", "-"], ["--text", "8"]),
    *(["--place", ""], ["--place", "a/../b//c"], ["--place", "there"], ["--place", "~"]),
    *(["one"], ["one", "two"], ["one", "", "b/"], ["--tag", "x", "--tag", "y"]),
    *(["--flag"], ["--no-flag"], ["--file", "there"], ["--file", "none"], ["--file", "."]),
    *(["--half", "3"], ["--upper", "a"]),
]


def answer(cls, line):
    """What a command is called with, or the error and its exit code."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    found = {}

    @app.command(cls=cls)
    def command(
        words: Annotated[list[Path] | None, typer.Argument()] = None,
        count: Annotated[int, typer.Option(min=1, max=20)] = 5,
        share: Annotated[float | None, typer.Option(max=2)] = None,
        text: Annotated[str | None, typer.Option()] = None,
        place: Annotated[Path, typer.Option()] = Path("x"),
        tag: Annotated[list[str] | None, typer.Option()] = None,
        flag: Annotated[bool, typer.Option()] = False,
        file: Annotated[Path | None, typer.Option(exists=True, dir_okay=False)] = None,
        half: Annotated[int, typer.Option(max=2, clamp=True)] = 1,
        upper: Annotated[str, typer.Option(parser=str.upper)] = "none",
        seconds: Annotated[float, typer.Option()] = 10,
    ) -> None:
        found.update(locals())

    try:
        app(args=line, standalone_mode=False)
    except Exception as error:
        return type(error).__name__, getattr(error, "message", str(error)), error.exit_code
    return {name: (type(value), value) for name, value in found.items() if name != "found"}


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_as_typer(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("there").touch()
    assert repr(answer(Command, line)) == repr(answer(TyperCommand, line))  # nan is not nan


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
def test_what_may_not_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("there").touch(mode=0)
    assert answer(Command, ["there"]) == answer(TyperCommand, ["there"])


def test_names_that_are_no_text():
    """Of files that a shell found."""
    name = os.fsdecode(b"\xff.jpg")
    found = answer(Command, ["--text", name, "--place", name, name])
    assert (found["text"][1], found["place"][1]) == (name, Path(name))
    assert found["words"][1] == [Path(name)]


def test_another_typer_is_left_alone():
    class Parameter:
        name = "x"

    parameters = [Parameter()]
    assert take_plain_values(parameters) is parameters
    assert vars(parameters[0]) == {}
