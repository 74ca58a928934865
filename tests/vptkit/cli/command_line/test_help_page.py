"""Help pages: groups, choices, examples, and the width of the terminal."""

from __future__ import annotations

import shlex

import pytest

from tests.support.command_tree import COMMANDS, options_of
from vptkit.cli.command_line.groups import EXAMPLES, OPTIONS
from vptkit.cli.command_line.help_page import shown_spellings


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_fits_and_says_all(vptkit, monkeypatch, name, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    code, page, err = vptkit(*name.split(), "--help")
    assert (code, err) == (0, "")
    assert max(map(len, page.splitlines())) <= columns
    assert page.startswith(f"Usage: vptkit {name}".strip())
    words = page.replace(",", " ").split()
    for option in options_of(COMMANDS[name]):
        shown = shown_spellings(option)
        assert all(word in words for word in (*shown, *option.secondary_opts))
        assert not any(word in words for word in option.opts if word not in shown)
    headings = [line for line in page.splitlines() if line.endswith(":") and line[0] != " "]
    assert headings[0] == "Examples:"
    assert [heading for heading in OPTIONS.get(name, ()) if f"{heading}:" not in headings] == []


@pytest.mark.slow
def test_examples_can_be_pasted(vptkit, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    for name in COMMANDS:
        page = vptkit(*name.split(), "-h")[1]
        part = page.partition("Examples:\n")[2].partition("\n\n")[0]
        lines = part.replace("\\\n", "").splitlines()
        assert [shlex.split(line) for line in lines] == [
            ["vptkit", *e.split()] for e in EXAMPLES[name]
        ]


def test_choices_and_defaults_are_shown(vptkit):
    page = vptkit("tune", "-h")[1]
    assert "--method [auto|ln|vpt|bpt|lora|ln+vpt|ln+bpt|ln+lora|lora+vpt|" in page
    assert "-o, --output PATH" in page
    page = " ".join(vptkit("export", "-h")[1].split())
    assert "--islands, --no-islands" in page
    assert "else refuse [--islands]." in page
    assert "[fp32|fp16|bf16|int8|fp8]" in page
    assert "Usage: vptkit doctor [OPTIONS] [BUNDLE]\n" in vptkit("doctor", "-h")[1]
    assert "Usage: vptkit run [OPTIONS] BUNDLE SOURCE...\n" in vptkit("run", "-h")[1]


def test_a_long_list_of_choices_breaks_behind_a_bar(vptkit, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = vptkit("run", "-h")[1].splitlines()
    first = next(i for i, line in enumerate(lines) if "--backend [" in line)
    last = next(i for i, line in enumerate(lines) if i >= first and line.endswith("]"))
    assert last > first
    assert all(line.endswith("|") for line in lines[first:last])
