"""Folders whose images a list names, as Hugging Face and Roboflow export them."""

from __future__ import annotations

import json

import pytest

from tests.support.image_archives import png
from vptkit.datasets.dataset_files import read_data_files
from vptkit.datasets.dataset_summary import skipped_files
from vptkit.datasets.list_places import lists_in, split_of_list
from vptkit.errors import DataError
from vptkit.images.labelled_images import images_of


def write(root, **files):
    """Images, and texts by their name with __ for a slash and _dot_ for a dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(1) if text is None else text.encode())
    return root


def names(root, splits):
    return {
        split: {
            label: [str(path.relative_to(root)) for path in images]
            for label, images in found.items()
        }
        for split, found in splits.items()
    }


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_an_imagefolder_with_metadata(tmp_path, form):
    rows = [("a.png", "cat"), ("b.png", "dog")]
    text = "file_name,label\n" + "".join(f"{name},{label}\n" for name, label in rows)
    if form == "jsonl":
        text = "\n".join(json.dumps({"file_name": name, "label": label}) for name, label in rows)
    write(tmp_path, a_dot_png=None, b_dot_png=None)
    (tmp_path / f"metadata.{form}").write_text(text)
    found = read_data_files(tmp_path)
    assert names(tmp_path, found) == {"": {"cat": ["a.png"], "dog": ["b.png"]}}
    assert skipped_files(tmp_path, images_of(found)) == {}


def test_metadata_in_each_split_or_of_all(tmp_path):
    expected = {"train": {"x": ["train/a.png"]}, "test": {"x": ["test/b.png"]}}
    write(tmp_path, train__a_dot_png=None, test__b_dot_png=None)
    for split, name in (("train", "a"), ("test", "b")):
        (tmp_path / split / "metadata.csv").write_text(f"file_name,label\n{name}.png,x\n")
    assert names(tmp_path, read_data_files(tmp_path)) == expected
    (tmp_path / "metadata.csv").write_text("file_name,label\ntrain/a.png,x\ntest/b.png,x\n")
    assert lists_in(tmp_path) == [tmp_path / "metadata.csv"]
    assert names(tmp_path, read_data_files(tmp_path)) == expected


def test_roboflow_with_a_column_for_each_class(tmp_path):
    write(tmp_path, train__a_dot_png=None, valid__b_dot_png=None)
    for split, row in (("train", "a.png, 1, 0"), ("valid", "b.png, 0, 1")):
        (tmp_path / split / "_classes.csv").write_text(f"filename, cat, dog\n{row}\n")
    assert names(tmp_path, read_data_files(tmp_path)) == {
        "train": {"cat": ["train/a.png"]},
        "val": {"dog": ["valid/b.png"]},
    }


def test_roboflow_with_coco(tmp_path):
    write(tmp_path, train__a_dot_png=None, test__b_dot_png=None)
    for split, name in (("train", "a.png"), ("test", "b.png")):
        document = {
            "images": [{"id": 0, "file_name": name}],
            "annotations": [{"image_id": 0, "category_id": 1}],
            "categories": [{"id": 0, "name": "all"}, {"id": 1, "name": "cat"}],
        }
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(document))
    found = read_data_files(tmp_path)
    assert names(tmp_path, found) == {
        "train": {"cat": ["train/a.png"]},
        "test": {"cat": ["test/b.png"]},
    }
    assert split_of_list(tmp_path, tmp_path / "valid" / "x.csv") == "val"


def test_captions_beside_class_folders_are_no_labels(tmp_path):
    write(
        tmp_path,
        cat__a_dot_png=None,
        dog__b_dot_png=None,
        metadata_dot_csv="file_name,text\na.png,hello\n",
    )
    assert read_data_files(tmp_path) is None
    (tmp_path / "dog" / "b.png").unlink()
    (tmp_path / "dog").rmdir()
    with pytest.raises(
        DataError, match=r"metadata\.csv: no column of labels is known.*image=file_name"
    ):
        read_data_files(tmp_path)
    found = read_data_files(tmp_path, columns={"label": "text"})
    assert names(tmp_path, found) == {"": {"hello": ["cat/a.png"]}}


def test_a_list_that_is_a_link_to_elsewhere_is_refused(tmp_path):
    write(tmp_path / "d", a_dot_png=None)
    (tmp_path / "other.csv").write_text("file_name,label\na.png,x\n")
    (tmp_path / "d" / "metadata.csv").symlink_to(tmp_path / "other.csv")
    with pytest.raises(DataError, match="lies outside of this data set"):
        read_data_files(tmp_path / "d")
