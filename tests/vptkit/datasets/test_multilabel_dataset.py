"""Images with any number of labels, however they are listed."""

from __future__ import annotations

import json

import pytest

from tests.support.image_archives import png
from vptkit.datasets.dataset_files import read_data_files
from vptkit.datasets.multilabel_dataset import read_multilabel
from vptkit.datasets.table_columns import parse_columns
from vptkit.errors import DataError

EXPECTED = {"a.png": ["cat", "dog"], "b.png": ["dog"], "c.png": []}


@pytest.fixture
def images(tmp_path):
    for name in EXPECTED:
        (tmp_path / name).write_bytes(png(1))
    return tmp_path


def nothing():
    raise AssertionError("read as of one label an image")


def read(place, columns=None):
    """{split: {name: its labels}}."""
    found = read_multilabel(place, nothing, columns=parse_columns(columns))
    return {
        split: {
            image.name: [found.labels[i] for i in row.nonzero()[0]]
            for image, row in zip(part.images, part.truth, strict=True)
        }
        for split, part in found.splits.items()
    }


COCO = {
    "images": [{"id": i, "file_name": name} for i, name in enumerate(EXPECTED)],
    "annotations": [
        {"image_id": 0, "category_id": 7},
        {"image_id": 0, "category_id": 8},
        {"image_id": 0, "category_id": 8},
        {"image_id": 1, "category_id": 8},
    ],
    "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}, {"id": 9, "name": "none"}],
}
JSONL = '{"file_name":"a.png","labels":["dog","cat"]}\n{"file_name":"b.png","labels":["dog"]}\n'


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("x.csv", "path,label\na.png,cat;dog\nb.png,dog\nc.png,\n", None),
        ("x.csv", "image_id;class\na;cat|dog\nb;dog\nc;\n", None),
        ("x.csv", 'path,label\na.png,"dog, cat"\nb.png,dog\nc.png,\n', None),
        ("x.csv", 'path,label\na.png,"[""dog"", ""cat""]"\nb.png,"[""dog""]"\nc.png,[]\n', None),
        ("x.csv", "path,tags\na.png,dog cat\nb.png,dog\nc.png,\n", "label=tags,separator=space"),
        ("x.csv", "path,label\na.png,dog\na.png,cat\nb.png,dog\nc.png,\n", None),
        ("x.csv", "path,cat,dog\na.png,1,1.0\nb.png,0,yes\nc.png,,No\n", None),
        ("x.csv", "path,age,cat,dog\na.png,7,1,1\nb.png,8,,1\nc.png,9,0,0\n", "label=cat|dog"),
        ("x.jsonl", JSONL + '{"file_name":"c.png","labels":null}\n', None),
        ("x.json", json.dumps(EXPECTED), None),
        ("x.json", json.dumps(COCO), None),
    ],
)
def test_one_data_set_however_it_is_written(images, name, text, columns):
    (images / name).write_text(text)
    assert read(images / name, columns) == {"": EXPECTED}


@pytest.mark.parametrize("kind", ["labels.json", "metadata.csv", "_classes.csv"])
def test_a_folder_with_a_list_in_each_split(tmp_path, kind):
    for split, name in (("train", "a.png"), ("valid", "b.png"), ("test", "c.png")):
        (tmp_path / split).mkdir()
        (tmp_path / split / name).write_bytes(png(1))
        labels = EXPECTED[name]
        text = {
            "labels.json": json.dumps({name: labels}),
            "metadata.csv": f"file_name,labels\n{name},{';'.join(labels)}\n",
            "_classes.csv": f"filename,cat,dog\n{name},{int('cat' in labels)},{int('dog' in labels)}\n",
        }[kind]
        (tmp_path / split / kind).write_text(text)
    by_split = {"train": "a.png", "val": "b.png", "test": "c.png"}
    assert read(tmp_path) == {split: {name: EXPECTED[name]} for split, name in by_split.items()}


def test_splits_of_a_table_a_json_and_of_folders(images):
    (images / "x.csv").write_text("path,label,split\na.png,cat;dog,train\nb.png,dog,valid\n")
    expected = {"train": {"a.png": ["cat", "dog"]}, "val": {"b.png": ["dog"]}}
    assert read(images / "x.csv") == expected
    (images / "x.json").write_text(
        json.dumps({"train": {"a.png": ["cat", "dog"]}, "val": {"b.png": ["dog"]}})
    )
    assert read(images / "x.json") == expected
    (images / "train").mkdir()
    (images / "a.png").rename(images / "train" / "a.png")
    (images / "labels.json").write_text(json.dumps({"train/a.png": ["cat", "dog"]}))
    assert read(images) == {"train": {"a.png": ["cat", "dog"]}}


def test_columns_keep_their_order_and_labels_that_no_image_has(images):
    (images / "x.csv").write_text("path,zebra,cat\na.png,0,1\n")
    assert read_multilabel(images / "x.csv", nothing).labels == ("zebra", "cat")


def test_one_name_spelled_in_two_ways_is_one_label(images):
    (images / "x.json").write_text(json.dumps({"a.png": ["caf\u00e9"], "b.png": ["cafe\u0301"]}))
    assert read_multilabel(images / "x.json", nothing).labels == ("caf\u00e9",)


def test_images_with_one_label_each(images):
    one = {"train": {"cat": [images / "a.png"], "dog": [images / "b.png"]}}
    found = read_multilabel(images, lambda: one)
    assert found.labels == ("cat", "dog")
    assert found.splits["train"].truth.tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "path,label\na.png,cat;dog\nb.png,cat|dog\n", r"separator="),
        ("x.csv", "path,cat,dog\na.png,1,-1\n", r"line 2: dog is '-1', .* neither yes nor no"),
        ("x.csv", "path,cat,dog\na.png,nan,0\n", r"line 2: cat is 'nan', .* neither yes nor no"),
        ("x.csv", "path,age,dog\na.png,7,0\n", r"line 2: age is '7'.*label=NAME\|NAME"),
        ("x.csv", "path,cat,dog\na.png,1,0\na.png,0,1\n", r"line 3: a.png stands .* already"),
        ("x.csv", "path,label,split\na.png,x,train\na.png,y,val\n", r"line 3: .* another split"),
        ("x.csv", "path,label\n,cat\n", r"line 2 has no path"),
        ("x.csv", "path,label\na.png,\n", r"no image has a label"),
        ("x.csv", "path,label\nz.png,cat\n", r"line 2: z.png: no such file"),
        ("x.json", '{"a.png": 0.5}', r"'a.png': '0.5', expected a list of labels"),
        ("x.json", '{"a.png": [null]}', r"None among its labels"),
        ("x.json", '{"a.png": ["cat", 3]}', r"partly|some labels are numbers, some are names"),
        ("x.json", "{}", r"no images in there"),
        ("x.json", '{"holdout": {"a.png": ["cat"]}}', r"the split is 'holdout'"),
    ],
)
def test_what_is_refused(images, name, text, message):
    (images / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read(images / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", "path,label\na.png,cat;dog\nb.png,dog\nc.png,cat\n"),
        ("x.csv", "path,cat,dog\na.png,1,1\n"),
        ("x.csv", "path,cat,dog\na.png,0,0\n"),
        ("x.jsonl", JSONL),
        ("x.json", json.dumps({"a.png": ["cat", "dog"]})),
        ("x.json", json.dumps(COCO)),
    ],
)
def test_read_as_one_label_an_image_it_names_the_option(images, name, text):
    (images / name).write_text(text)
    with pytest.raises(DataError, match="--task multilabel"):
        read_data_files(images / name)


def test_files_outside_are_refused(tmp_path, images):
    (images / "in").mkdir()
    (images / "in" / "x.json").write_text(json.dumps({"../a.png": ["cat"]}))
    with pytest.raises(DataError, match="outside of this data set"):
        read(images / "in" / "x.json")
