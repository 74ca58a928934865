"""CSV files of paths and labels."""

from __future__ import annotations

import os

import pytest

from tests.support.image_archives import png
from vptkit.datasets.dataset_files import read_data_files
from vptkit.datasets.table_dataset import read_table
from vptkit.errors import DataError


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_csv(tmp_path, delimiter):
    for name in ("b,1.png", "a.png"):
        (tmp_path / name).write_bytes(png(1))
    lines = [["Label", "path"], ["red", '"b,1.png"'], ["blue", "a.png"], [""]]
    file = tmp_path / "list.csv"
    file.write_text("\r\n".join(delimiter.join(cells) for cells in lines))
    assert read_data_files(file) == {
        "": {"blue": [tmp_path / "a.png"], "red": [tmp_path / "b,1.png"]}
    }


@pytest.fixture
def listed(tmp_path):
    """A function: the lines of a CSV file beside a.png and b.png → what it lists."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png(1))

    def read(*lines):
        (tmp_path / "list.csv").write_text("\n".join(lines))
        return read_table(tmp_path / "list.csv")

    return read


def test_order_and_other_columns_do_not_matter(listed, tmp_path):
    found = listed("label,author,path,split", "x,me,b.png,valid", "y,you,a.png,train")
    assert found == {"train": {"y": [tmp_path / "a.png"]}, "val": {"x": [tmp_path / "b.png"]}}
    assert found == listed("path;split;label", "a.png;train;y", "", "b.png;valid;x", ";;")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ("of,mine", "a.png,x"),
            r"no column of images is known\. Say --columns image=NAME,label=NAME .*of, mine$",
        ),
        (("path", "a.png"), r"first line is 'path', expected"),
        (("path,label", "a.png,x", "b.png, y, z"), r"line 3 has 3 columns, expected 2; a ','"),
        (("path,label", "", "a.png,"), r"line 3 has no label"),
        (("path,label", "c.png,x"), r"line 2: c\.png: no such file"),
        (("path,label", "a.png,x", "./a.png,y"), r"line 3: \./a\.png stands in line 2 already"),
        (
            ("path,label,split", "a.png,x,holdout"),
            r"line 2: the split is 'holdout', expected train",
        ),
    ],
)
def test_the_line_that_is_wrong_is_named(listed, lines, message):
    with pytest.raises(DataError, match=rf"list\.csv: .*{message}"):
        listed(*lines)


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(DataError, match=r"list\.csv: no such file"):
        read_table(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_bytes(b"path,label\n\xff\xfe,x\n")
    with pytest.raises(DataError, match=r"not a CSV file in UTF-8"):
        read_table(tmp_path / "list.csv")


def test_a_list_that_is_no_file_or_never_ends(tmp_path):
    os.mkfifo(tmp_path / "list.csv")
    with pytest.raises(DataError, match=r"list\.csv: a FIFO, expected a regular file"):
        read_table(tmp_path / "list.csv")
    (tmp_path / "list.csv").unlink()
    with (tmp_path / "list.csv").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(DataError, match=r"list\.csv: more than 268435456 bytes"):
        read_table(tmp_path / "list.csv")


@pytest.mark.parametrize("name", ["a\0b.png", "a" * 300, "a/" * 3000])
def test_a_path_that_no_file_has(tmp_path, name):
    (tmp_path / "list.csv").write_text(f"path,label\n{name},x\n")
    with pytest.raises(DataError, match=r"list\.csv: (line 2: .*no such file|not a CSV)"):
        read_table(tmp_path / "list.csv")


@pytest.mark.parametrize(
    "image", ["path", "image", "image_id", "filename", "file_name", "filepath", "id"]
)
@pytest.mark.parametrize(
    ("label", "split"),
    [
        ("label", "split"),
        ("class", "set"),
        ("Target", "Subset"),
        ("category", "SPLIT"),
        ("labels", "set"),
    ],
)
def test_columns_as_others_call_them(listed, tmp_path, image, label, split):
    found = listed(f"n,{image},{label},{split}", "1,a.png,x,train", "2,b.png,y,valid")
    assert found == {"train": {"x": [tmp_path / "a.png"]}, "val": {"y": [tmp_path / "b.png"]}}


def test_endings_may_be_left_out(listed, tmp_path):
    expected = {"": {"x": [tmp_path / "a.png"], "y": [tmp_path / "b.png"]}}
    assert listed("image_id,label", "a,x", "b,y") == expected


def test_json_lines(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png(1))
    file = tmp_path / "list.jsonl"
    file.write_text(
        '{"file_name": "b.png", "label": 1, "text": "two"}\n\n{"file_name": "a", "label": [0]}\n'
    )
    assert read_data_files(file) == {"": {"0": [tmp_path / "a.png"], "1": [tmp_path / "b.png"]}}
    for line, message in (
        ('{"file_name": "a.png"}', r"line 1 has no label|no column of labels"),
        ('{"file_name": "a.png", "label": ["x", "y"]}', r"line 1 has 2 labels \(x, y\)"),
        ("[1]", r"line 1: not a JSON object"),
        ("", "no images in there"),
    ):
        file.write_text(line)
        with pytest.raises(DataError, match=rf"list\.jsonl: {message}"):
            read_table(file)


def test_a_column_for_each_class(listed, tmp_path):
    """As Roboflow writes _classes.csv, with spaces before the names."""
    found = listed("filename, cat, dog", "a.png, 1, 0", "b.png, 0, 1")
    assert found == {"": {"cat": [tmp_path / "a.png"], "dog": [tmp_path / "b.png"]}}
    with pytest.raises(DataError, match=r"line 3 has 2 labels \(cat, dog\); .*multilabel"):
        listed("filename, cat, dog", "a.png, 1, 0", "b.png, 1, 1")
    with pytest.raises(DataError, match=r"line 2 has no label"):
        listed("filename, cat, dog", "a.png, 0, 0")
    with pytest.raises(
        DataError,
        match=r"no column of labels is known \(line 2: kind is 'x'.*--columns image=filename,label=NAME",
    ):
        listed("filename,kind,age", "a.png,x,0")


def test_what_is_ambiguous_is_asked_and_the_answer_is_taken(listed, tmp_path):
    lines = ("id,filename,label", "1,a.png,x", "2,b.png,y")
    with pytest.raises(
        DataError,
        match=r"id and filename may both be the image\. Say --columns image=id,label=label ",
    ):
        listed(*lines)
    expected = {"": {"x": [tmp_path / "a.png"], "y": [tmp_path / "b.png"]}}
    assert read_table(tmp_path / "list.csv", {"image": "filename"}) == expected
    listed_again = ("filename,breed,set", "a.png,x,A", "b.png,y,B")
    with pytest.raises(DataError, match=r"label=NAME"):
        listed(*listed_again)
    with pytest.raises(DataError, match=r"split is 'A'.*--columns split="):
        read_table(tmp_path / "list.csv", {"label": "breed"})
    assert read_table(tmp_path / "list.csv", {"label": "breed", "split": ""}) == expected
    with pytest.raises(DataError, match=r"it has no column 'colour'"):
        read_table(tmp_path / "list.csv", {"label": "colour"})
