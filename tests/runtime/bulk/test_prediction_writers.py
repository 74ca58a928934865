"""JSON lines and CSV of predictions, whole or not at all."""

from __future__ import annotations

import csv
import json
import sys

import pytest

from vptkit.errors import OutputError
from vptkit.runtime.bulk.prediction_writers import deliver, jsonl_writer, saving, text_writer
from vptkit.runtime.session.session_protocol import Prediction


@pytest.fixture
def two(tmp_path):
    return [
        Prediction(path=tmp_path / "a,b.jpg", adapter="x", top=(("cat", 0.75), ('"dog"', 0.25))),
        Prediction(path=tmp_path / "c.jpg", adapter="x", error="broken"),
    ]


def test_jsonl(tmp_path, two):
    with saving(tmp_path / "out.jsonl", top_k=2) as write:
        assert deliver(two, [write]) == (2, 1, two[1])
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [p.to_json() for p in two]


def test_csv(tmp_path, two):
    with saving(tmp_path / "out.csv", top_k=3) as write:
        deliver(two, [write])
    with (tmp_path / "out.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0] == {
        "path": str(two[0].path),
        "adapter": "x",
        "error": "",
        "label_1": "cat",
        "score_1": "0.75",
        "label_2": '"dog"',
        "score_2": "0.25",
        "label_3": "",
        "score_3": "",
    }
    assert rows[1]["error"] == "broken"
    assert set(list(rows[1].values())[3:]) == {""}


def test_several_writers_get_everything(two, capsys):
    import sys

    deliver(two, [jsonl_writer(sys.stdout), text_writer(sys.stderr)])
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert "cat 0.750" in err
    assert "error: broken" in err


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_an_interrupted_save_leaves_nothing(tmp_path, two, suffix):
    folder = tmp_path / "out"
    folder.mkdir()

    def interrupted():
        with saving(folder / f"x{suffix}", top_k=2) as write:
            write(two[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(folder.iterdir()) == []


def test_a_file_that_exists_is_kept_unless_forced(tmp_path, two):
    path = tmp_path / "out.jsonl"
    path.write_text("precious")
    with pytest.raises(OutputError, match="--force"), saving(path, top_k=2):
        pass
    assert path.read_text() == "precious"
    with saving(path, top_k=2, force=True) as write:
        write(two[0])
    assert "cat" in path.read_text()


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"not '\.xml'"), saving(tmp_path / "x.xml", top_k=2):
        pass


def test_a_csv_holds_no_formula_and_scores_stay_numbers(tmp_path):
    evil = Prediction(
        path="-x.png", adapter="=a", top=(("=cmd|' /C calc'!A0", 0.5), ("+x;=1", 1e-9))
    )
    broken = Prediction(path="b\udcff.png", adapter="a", error="@error\n=1+1")
    with saving(tmp_path / "out.csv", top_k=2) as write:
        deliver([evil, broken], [write])
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert rows[1] == ["'-x.png", "'=a", "", "'=cmd|' /C calc'!A0", "0.5", "'+x;=1", "1e-09"]
    assert rows[2][:3] == ["b\\udcff.png", "a", "'@error\n=1+1"]


def test_one_line_an_image_whatever_its_label_is(capsys):
    forged = Prediction(path="a\n.png", adapter="a", top=(("x\nb.png  cat 1.000\x1b[8m", 0.5),))
    text_writer(sys.stdout)(forged)
    assert capsys.readouterr().out == "a\\n.png  x\\nb.png  cat 1.000\\x1b[8m 0.500\n"


# several labels an image --------------------------------------------------------------------------


@pytest.fixture
def several(tmp_path):
    top = (("cat", 0.75), ("a;b", 0.25))
    return [
        Prediction(path=tmp_path / "a.jpg", adapter="x", top=top, labels=top),
        Prediction(path=tmp_path / "b.jpg", adapter="x", top=top, labels=()),
        Prediction(path=tmp_path / "c.jpg", adapter="x", error="broken"),
    ]


def test_csv_of_several_labels(tmp_path, several):
    with saving(tmp_path / "out.csv", top_k=1, several=True) as write:
        deliver(several, [write])
    with (tmp_path / "out.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["path", "adapter", "error", "labels", "scores"]
    assert (json.loads(rows[0]["labels"]), json.loads(rows[0]["scores"])) == (
        ["cat", "a;b"],
        [0.75, 0.25],
    )
    assert [rows[i]["labels"] for i in (1, 2)] == ["[]", ""]


def test_text_of_several_labels(several, capsys):
    deliver(several, [text_writer(sys.stdout)])
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.endswith("a.jpg  cat 0.750  a;b 0.250")
    assert second.endswith("b.jpg  no label (nearest: cat 0.750)")
    assert third.endswith("error: broken")


def test_of_many_broken_images_the_first_is_kept(tmp_path):
    many = (Prediction(path=tmp_path / f"{i}", adapter="x", error=f"{i}") for i in range(5))
    assert deliver(many, []) == (5, 5, Prediction(path=tmp_path / "0", adapter="x", error="0"))
