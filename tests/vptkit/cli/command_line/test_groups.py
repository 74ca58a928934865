"""Every option of every command stands in one group, and the examples are lines that vptkit reads."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.docs.cli_options import complaint
from tests.support.command_tree import COMMANDS, options_of
from vptkit.cli.command_line.groups import COMMANDS as GROUPS_OF_COMMANDS
from vptkit.cli.command_line.groups import EXAMPLES, LAST_OPTIONS, OPTIONS
from vptkit.cli.command_line.help_page import grouped, shown_spellings

EVERYWHERE = {"json", "verbose", "help"}  # in the last group without being listed
LEAVES = {name: command for name, command in COMMANDS.items() if not hasattr(command, "commands")}


def long_names(command):
    return [max(shown_spellings(option), key=len).lstrip("-") for option in options_of(command)]


@pytest.mark.parametrize("name", LEAVES)
def test_each_option_is_in_one_group(name):
    listed = " ".join(OPTIONS.get(name, {}).values()).split()
    assert sorted(listed) == sorted(set(long_names(LEAVES[name])) - EVERYWHERE)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_common_group_is_first_and_short(name):
    first = next(iter(OPTIONS[name]))
    assert first == "Common options"
    assert len(OPTIONS[name][first].split()) <= 12


def test_each_command_is_in_one_group():
    listed = [command for commands in GROUPS_OF_COMMANDS.values() for command in commands]
    assert sorted(listed) == sorted(name for name in COMMANDS if name and " " not in name)


def test_what_is_in_no_table_is_shown_last():
    """Should a command get an option before the table does."""
    found = grouped("no such command", options_of(LEAVES["tune"]))
    assert list(found) == [LAST_OPTIONS]
    assert len(found[LAST_OPTIONS]) == len(options_of(LEAVES["tune"]))


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_lines_that_vptkit_reads(name):
    examples = EXAMPLES[name]
    assert (
        len(set(examples)) == len(examples) >= (1 if name.startswith(("bank ", "devices ")) else 3)
    )
    for example in examples:
        assert complaint(f"vptkit {example}") is None
        assert not name or example.split()[: len(name.split())] == name.split()
        words = shlex.split(example)
        start = max(i for i in range(3) if " ".join(words[:i]) in COMMANDS)
        command = COMMANDS[" ".join(words[:start])]
        context = command.make_context("vptkit", words[start:], resilient_parsing=True)
        missing = [p.name for p in command.params if p.required and context.params[p.name] is None]
        assert (context.args, missing) == ([], [])


def test_examples_use_the_shown_spellings():
    words = {word for lines in EXAMPLES.values() for line in lines for word in line.split()}
    shown = {
        word
        for command in LEAVES.values()
        for o in options_of(command)
        for word in shown_spellings(o)
    }
    assert {word for word in words if re.match("--?[a-z]", word)} <= shown
