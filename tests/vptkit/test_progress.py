from __future__ import annotations

import io

import pytest

from vptkit.progress import SILENT, Lines, begin_phase, keep_line, keep_score, progress


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


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _shown_at(columns, monkeypatch, **variables):
    monkeypatch.setenv("COLUMNS", str(columns))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = _Terminal()
    with progress("tune", stream=stream) as bar:
        keep_line(bar, "flowers: 5 classes")
        begin_phase(bar, "training")
        bar.total = 8000
        bar.update(4000, "epoch 12/20  loss 0.421  train 0.912  240 images/s")
        keep_line(bar, "epoch 12/20  val 88.0 %")
    return stream.getvalue()


def test_a_narrow_window_drops_the_bar_and_keeps_the_words(monkeypatch):
    text = _shown_at(60, monkeypatch)
    assert "training" in text
    assert "4000/8000" in text
    assert "epoch 12/20  loss 0.421" in text
    assert "━" not in text
    assert "─" not in text
    assert "━" in _shown_at(120, monkeypatch)


def test_lines_that_are_kept_stand_above_the_bar(monkeypatch):
    text = _shown_at(80, monkeypatch)
    assert "flowers: 5 classes\n" in text
    assert text.index("flowers") < text.index("val 88.0 %\n")


@pytest.mark.parametrize("phase_over", [True, False])
def test_a_score_stays_on_the_bar_and_is_no_line(monkeypatch, phase_over):
    monkeypatch.setenv("COLUMNS", "100")
    terminal, plain = _Terminal(), io.StringIO()
    for stream in (terminal, plain):
        with progress("tune", stream=stream) as bar:
            bar.total = 8
            keep_score(bar, "val loss 0.310 88.0 %")
            if phase_over:
                begin_phase(bar, "testing")
            bar.update(4, "epoch 2/2 loss 0.421  train 0.912")  # what it ends with is drawn
    told = "epoch 2/2 loss 0.421  val loss 0.310 88.0 %  train 0.912"
    assert (told in terminal.getvalue()) == (not phase_over)
    assert "val loss" not in plain.getvalue()
    keep_score(SILENT, "x")


def test_no_color_is_obeyed(monkeypatch):
    assert "\x1b[36m" in _shown_at(100, monkeypatch, TERM="xterm-256color")
    assert "\x1b[36m" not in _shown_at(100, monkeypatch, TERM="xterm-256color", NO_COLOR="1")


def test_a_dumb_terminal_gets_lines(monkeypatch):
    assert "\x1b" not in _shown_at(80, monkeypatch, TERM="dumb")


def test_plain_lines_name_their_phase_and_keep_what_is_to_stay():
    stream, now = io.StringIO(), [0.0]
    lines = Lines("tune", 3, stream, every=5.0, clock=lambda: now[0])
    keep_line(lines, "flowers: 5 classes")
    begin_phase(lines, "testing")
    now[0] += 6
    lines.update(0, "20 of 250 images")
    lines.close()
    assert stream.getvalue() == "flowers: 5 classes\ntesting: 20 of 250 images\n"


def test_who_only_counts_is_not_asked_for_more():
    begin_phase(SILENT, "testing")
    keep_line(SILENT, "x")


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
