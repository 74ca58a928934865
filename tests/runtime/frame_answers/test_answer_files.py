"""Files that grow by whole lines."""

from __future__ import annotations

import csv
import io
import json
import os

import pytest

from tests.support.feeds import colour_frame
from vptkit.errors import OutputError
from vptkit.runtime.frame_answers.answer_files import growing_file, json_lines, text_lines
from vptkit.runtime.frame_answers.frame_answer import FrameAnswer
from vptkit.runtime.session.session_protocol import Prediction


def answer(number=0, label="red", **fields):
    prediction = Prediction(path=None, adapter="tiny", top=((label, 0.75),), **fields)
    frame = colour_frame("cam1", number, (0, 0, 0), captured=2.0, timestamp=1.25)
    return FrameAnswer(frame=frame, prediction=prediction, age=0.0123, held=None)


def test_each_line_is_there_at_once(tmp_path):
    path = tmp_path / "x.jsonl"
    with growing_file(path) as write:
        for number in range(3):
            write(answer(number))
            lines = path.read_text().splitlines()
            assert len(lines) == number + 1
            assert json.loads(lines[-1]) == {
                "source": "cam1", "frame": number, "timestamp": 1.25, "time": 1e9 + 2,
                "age_ms": 12.3, "adapter": "tiny", "label": "red", "score": 0.75,
                "top": [{"label": "red", "score": 0.75}],
            }  # fmt: skip


def test_csv(tmp_path):
    path = tmp_path / "x.csv"
    with growing_file(path) as write:
        assert path.read_text().startswith("source,frame,timestamp,time,age_ms,adapter,error,label")
        write(answer(label="=1+1"))
        (row,) = csv.DictReader(path.read_text().splitlines())
    assert (row["source"], row["frame"], row["label"], row["score"]) == (
        "cam1",
        "0",
        "'=1+1",
        "0.75",
    )


def interrupted(path):
    with growing_file(path) as write:
        write(answer(0))
        write(answer(1))
        raise KeyboardInterrupt


def test_an_exception_leaves_whole_lines(tmp_path):
    path = tmp_path / "x.jsonl"
    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    assert [json.loads(line)["frame"] for line in path.read_text().splitlines()] == [0, 1]


def test_a_full_disk_leaves_whole_lines(tmp_path, monkeypatch):
    path = tmp_path / "x.jsonl"
    real, calls = os.write, []

    def full(handle, data):
        calls.append(len(data))
        if len(calls) == 2:
            return real(handle, data[:10])
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return real(handle, data)

    with growing_file(path) as write:
        monkeypatch.setattr(os, "write", full)
        write(answer(0))
        with pytest.raises(OutputError, match="No space left"):
            write(answer(1))
        monkeypatch.undo()
    assert [json.loads(line)["frame"] for line in path.read_text().splitlines()] == [0]


@pytest.mark.parametrize("name", ["x.parquet", "x", "x.JSON"])
def test_other_suffixes_are_refused(tmp_path, name):
    with pytest.raises(OutputError, match="are saved as"), growing_file(tmp_path / name):
        pass


def test_what_exists_is_kept_unless_forced(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("mine")
    with pytest.raises(OutputError, match="--force"), growing_file(path):
        pass
    assert path.read_text() == "mine"
    with growing_file(path, force=True):
        pass
    assert path.read_text().startswith("source,")


def test_lines_for_people_and_programs():
    out = io.StringIO()
    text_lines(out)(answer())
    assert out.getvalue() == "cam1  1.25 s  red 0.750  (12 ms old)\n"
    out = io.StringIO()
    json_lines(out)(answer(error="broken"))
    assert json.loads(out.getvalue())["error"] == "broken"
