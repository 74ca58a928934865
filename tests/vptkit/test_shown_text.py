"""Somebody else's text: shown on a terminal and in a spreadsheet, and never obeyed."""

from __future__ import annotations

import csv
import io
import sys
import unicodedata

import pytest

from vptkit.shown_text import fitted, shown, shown_lines, spreadsheet_rows, tell, tell_once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb", r"a\nb"),
        ("a\r\tb", r"a\r\tb"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),  # the same of C1
        ("\x7f\x00", r"\x7f\x00"),
        ("a\u2028b\u2029c\x85d\x0be\x0cf\x1cg", r"a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"),
        ("gpj.\u202efdp", r"gpj.\u202efdp"),
        ("\u2066\u2069\u200e\u200f\u061c", r"\u2066\u2069\u200e\u200f\u061c"),
        ("c\u200bat\ufeff\xad", r"c\u200bat\ufeff\xad"),
        ("\U000e0041", r"\U000e0041"),
        ("\udcff", r"\udcff"),  # a byte of a name that is not UTF-8
        ("[red]x[/red] :smile:", "[red]x[/red] :smile:"),
    ],
)
def test_what_a_terminal_obeys_is_an_escape(text, expected):
    assert shown(text) == expected
    assert shown_lines(text) == expected.replace(r"\n", "\n")


def test_every_control_and_format_character_is_an_escape_but_those_that_writing_needs():
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    found = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) in kinds]
    odd = {c for c in found if shown(c) == c}
    numbers = set("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2")  # visible
    numbers |= {"\U000110bd", "\U000110cd"} | {chr(i) for i in range(0x13430, 0x13440)}
    assert odd == {"\u200c", "\u200d"} | (odd & numbers)


@pytest.mark.parametrize(
    "text",
    [
        "Äpfel",
        "猫",
        "قطة",
        "नमस्ते",
        "👨\u200d👩\u200d👧",
        "می\u200cخواهم",
        "❤\ufe0f",
        "a\xa0b",
        "x\\n",
        "½ °C",
    ],
)
def test_honest_names_stay_as_they_are(text):
    assert shown(text) == text


def test_a_line_is_one_line(capsys):
    tell("a\nb \x1b[2J")
    assert capsys.readouterr().err == "a\\nb \\x1b[2J\n"


def rows_of(*rows):
    stream = io.StringIO()
    write = spreadsheet_rows(stream)
    for row in rows:
        write(row)
    return stream.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "  =1",
        "\u200b=1",
        "＝1",
        "\x00=1",
        "-",
    ],
)
def test_a_formula_becomes_text(text):
    row = next(csv.reader(io.StringIO(rows_of([text, 0.5]), newline="")))
    assert row == [f"'{text}", "0.5"]


def test_numbers_and_honest_texts_stay_as_they_are():
    assert rows_of(["cat", -0.5, 3, None, True, "a-b", "2=2", ""]) == "cat,-0.5,3,,True,a-b,2=2,\n"


def test_a_text_that_another_delimiter_would_cut_is_quoted():
    """A spreadsheet of a country with a decimal comma cuts lines at semicolons."""
    assert rows_of(["x;=1+1", 0.5]) == '"x;=1+1",0.5\n'
    assert rows_of(["x\t=1+1", 0.5]) == '"x\t=1+1",0.5\n'


def test_what_utf8_cannot_write_becomes_an_escape():
    assert rows_of(["\udcff.png"]) == "\\udcff.png\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_no_line_that_it_would_cut_within_a_word(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    told = "error: flowers.safetensors: an adapter, not a bundle"
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        tell(told, stream)
    assert pipe.getvalue() == f"{told}\n"
    lines = terminal.getvalue().splitlines()
    assert lines == ["error: flowers.safetensors: an", "  adapter, not a bundle"]


def test_what_is_there_to_be_copied_and_what_fits_stays_as_it_is(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    text = "next: vptkit export flowers.safetensors -o flowers.vptk\nname   12\n\n" + "x" * 40
    assert fitted(text, Terminal()) == text


def test_a_line_is_told_once_of_each_subject(capsys, monkeypatch):
    """By one of torchrun's processes."""
    for subject in ("/here/w.pth", "/here/w.pth", "/there/w.pth"):
        tell_once("weights: w.pth", subject)
    assert capsys.readouterr().err == "weights: w.pth\n" * 2
    monkeypatch.setenv("RANK", "1")
    tell_once("weights: w.pth", "/elsewhere/w.pth")
    assert capsys.readouterr().err == ""
