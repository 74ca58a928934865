"""The mistakes as a file."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from vptkit.errors import OutputError
from vptkit.images.image_file import PackedImage
from vptkit.runtime.evaluation.evaluation_result import Mistake
from vptkit.runtime.evaluation.mistakes_file import require_mistakes_file, write_mistakes

MISTAKES = (
    Mistake(PackedImage(Path("d/0.tar"), "1.png", 0, 9), "=1+1", "b;c", 0.987654321),
    Mistake(Path(os.fsdecode(b"d/\xff.png")), "a\nb", "-2", 0.5),
)


def test_csv_holds_no_formulas(tmp_path):
    write_mistakes(MISTAKES, tmp_path / "wrong.csv")
    with (tmp_path / "wrong.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows == [
        ["path", "truth", "answered", "probability"],
        ["d/0.tar: 1.png", "'=1+1", "b;c", "0.987654321"],
        ["d/\\udcff.png", "a\nb", "'-2", "0.5"],
    ]


def test_json_lines_hold_names_as_they_are_but_for_bytes_that_are_not_utf8(tmp_path):
    (tmp_path / "wrong.jsonl").write_text("of before")
    write_mistakes(MISTAKES, tmp_path / "wrong.jsonl")
    lines = (tmp_path / "wrong.jsonl").read_text(encoding="ascii").splitlines()
    expected = [one.to_json() for one in MISTAKES]
    expected[1]["path"] = r"d/\udcff.png"  # strict readers refuse halves of surrogates
    assert [json.loads(line) for line in lines] == expected
    assert json.loads(lines[0])["truth"] == "=1+1"


def test_no_mistakes_are_a_header(tmp_path):
    write_mistakes((), tmp_path / "wrong.csv")
    assert (tmp_path / "wrong.csv").read_text() == "path,truth,answered,probability\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.txt", r"as \.csv or \.jsonl, not '\.txt'"), ("no/a.csv", "does not exist")],
)
def test_what_cannot_be_written_is_found_out_beforehand(tmp_path, name, message):
    with pytest.raises(OutputError, match=message):
        require_mistakes_file(tmp_path / name, force=False)


def test_what_is_there_stays(tmp_path):
    (tmp_path / "a.csv").touch()
    with pytest.raises(OutputError, match="--force"):
        require_mistakes_file(tmp_path / "a.csv", force=False)
    require_mistakes_file(tmp_path / "a.csv", force=True)
