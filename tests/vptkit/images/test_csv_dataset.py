"""CSV files of paths and labels."""

from __future__ import annotations

import os

import pytest

from tests.support.image_archives import png
from vptkit.errors import DataError
from vptkit.images.csv_dataset import read_csv
from vptkit.images.dataset_files import read_data_files


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
        return read_csv(tmp_path / "list.csv")

    return read


def test_order_and_other_columns_do_not_matter(listed, tmp_path):
    found = listed("label,author,path,split", "x,me,b.png,valid", "y,you,a.png,train")
    assert found == {"train": {"y": [tmp_path / "a.png"]}, "val": {"x": [tmp_path / "b.png"]}}
    assert found == listed("path;split;label", "a.png;train;y", "", "b.png;valid;x", ";;")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("file,label", "a.png,x"), r"first line is 'file,label'"),
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
        read_csv(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_bytes(b"path,label\n\xff\xfe,x\n")
    with pytest.raises(DataError, match=r"not a CSV file in UTF-8"):
        read_csv(tmp_path / "list.csv")


def test_a_list_that_is_no_file_or_never_ends(tmp_path):
    os.mkfifo(tmp_path / "list.csv")
    with pytest.raises(DataError, match=r"list\.csv: a FIFO, expected a regular file"):
        read_csv(tmp_path / "list.csv")
    (tmp_path / "list.csv").unlink()
    with (tmp_path / "list.csv").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(DataError, match=r"list\.csv: more than 268435456 bytes"):
        read_csv(tmp_path / "list.csv")


@pytest.mark.parametrize("name", ["a\0b.png", "a" * 300, "a/" * 3000])
def test_a_path_that_no_file_has(tmp_path, name):
    (tmp_path / "list.csv").write_text(f"path,label\n{name},x\n")
    with pytest.raises(DataError, match=r"list\.csv: (line 2: .*no such file|not a CSV)"):
        read_csv(tmp_path / "list.csv")
