"""Commands are made one by one, and are then as if all had been made at once."""

from __future__ import annotations

import sys

import pytest
import typer

from tests.support.children import run_child
from vptkit.cli.command_line.classes import Command, Group
from vptkit.cli.command_line.lazy_commands import LazyCommands, lazy_group
from vptkit.cli.entry import COMMANDS, app

PLACES = {
    "doctor": "vptkit.cli.runtime_commands.doctor:doctor",
    "devices": "vptkit.cli.runtime_commands.devices:devices",
    "lost": "vptkit.cli.no_such_module:lost",
}


def test_a_command_is_made_once_and_alone():
    commands = LazyCommands(PLACES)
    assert list(commands) == list(PLACES)
    assert len(commands) == 3
    assert "lost" in commands
    assert "other" not in commands
    assert commands.get("other") is None
    assert commands["doctor"] is commands["doctor"]
    assert (type(commands["doctor"]), commands["doctor"].name) == (Command, "doctor")
    with pytest.raises(ImportError, match="no_such_module"):
        commands["lost"]


def test_a_group_below():
    devices = LazyCommands(PLACES)["devices"]
    assert (type(devices), devices.name) == (Group, "devices")
    assert set(devices.commands) == {"list", "show", "detect"}
    assert [p.name for p in devices.params] == []  # no completion of typer's own


def test_a_lazy_group_runs_what_is_named(capsys):
    small = typer.Typer(cls=lazy_group(PLACES), add_completion=False)
    small.callback()(lambda: None)
    small(args=["devices", "list"], standalone_mode=False)
    assert "orin" in capsys.readouterr().out


def test_all_commands_are_there():
    root = typer.main.get_command(app)
    assert list(root.commands) == list(COMMANDS)
    assert [command.name for command in root.commands.values()] == list(COMMANDS)


def test_one_command_does_not_load_the_others():
    code = (
        "import sys\nfrom vptkit.cli import app\n"
        "app(args=['devices', 'list'], standalone_mode=False)\n"
        "print(*(n for n in sys.modules if '_commands.' in n.partition('vptkit.cli.')[2]), file=sys.stderr)"
    )
    done = run_child([sys.executable, "-c", code], cwd="/")
    assert done.stderr.split() == ["vptkit.cli.runtime_commands.devices"]
