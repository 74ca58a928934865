from __future__ import annotations

import io

import pytest

from vptkit.progress import SILENT, Lines, progress


def test_lines_are_few_and_the_last_state_is_written():
    stream, now = io.StringIO(), [0.0]
    lines = Lines("tune", 10, stream, every=5.0, clock=lambda: now[0])
    for i in range(10):
        now[0] += 1
        lines.update(1, f"loss {i}")
    lines.close()
    lines.close()
    assert stream.getvalue() == "tune: 5/10  loss 4  5 s left\ntune: 10/10  loss 9\n"


def test_the_total_may_come_late_and_the_text_stays():
    stream = io.StringIO()
    with progress("eval", stream=stream) as bar:
        bar.update(1, "x")
        bar.total = 3
        bar.update(2)
    assert stream.getvalue() == "eval: 3/3  x\n"


def test_no_work_no_line():
    stream = io.StringIO()
    with progress("eval", stream=stream):
        pass
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with progress("tune", stream=stream) as bar:
        bar.total = 4
        bar.update(2, "loss [0.5]")
    assert "tune" in stream.getvalue()
    assert "2/4" in stream.getvalue()
    assert "loss [0.5]" in stream.getvalue()


def test_silence(capsys):
    SILENT.total = 5
    SILENT.update(1, "x")
    assert SILENT.total is None
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("terminal", [False, True])
def test_words_of_others_are_shown_and_not_obeyed(terminal):
    """Names of layers come from a graph, words from a board."""

    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    stream = Stream()
    with progress("ti[red]tle\x07", stream=stream) as bar:
        bar.update(1, "a\nbuild: 9/9\x1b]0;owned\x07 [bold]b[/bold]")
    assert r"a\nbuild: 9/9\x1b]0;owned\x07 [bold]b[/bold]" in stream.getvalue().replace("\n", "")
    assert r"ti[red]tle\x07" in stream.getvalue()
    assert "\x1b]0;" not in stream.getvalue()
