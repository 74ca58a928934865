from __future__ import annotations

import json

import pytest

from tests.support.image_archives import png
from vptkit.datasets.coco_dataset import read_coco
from vptkit.datasets.dataset_files import read_data_files
from vptkit.errors import DataError

DOCUMENT = {
    "info": {},
    "images": [{"id": 0, "file_name": "a.png"}, {"id": "b", "file_name": "b.png"}],
    "annotations": [
        {"image_id": 0, "category_id": 2, "bbox": [0, 0, 1, 1]},
        {"image_id": 0, "category_id": 2},
        {"image_id": "b", "category_id": 1},
    ],
    "categories": [
        {"id": 0, "name": "animals"},
        {"id": 1, "name": "dog"},
        {"id": 2, "name": "cat"},
    ],
}


@pytest.fixture
def coco(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png(1))

    def write(**changes):
        (tmp_path / "x.json").write_text(json.dumps(DOCUMENT | changes))
        return tmp_path / "x.json"

    return write


def test_one_category_an_image(coco, tmp_path):
    expected = {"": {"cat": [tmp_path / "a.png"], "dog": [tmp_path / "b.png"]}}
    assert read_data_files(coco()) == expected
    assert [row.split for row in read_coco(coco(), "val")] == ["val", "val"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": DOCUMENT["annotations"] + [{"image_id": 0, "category_id": 1}]},
         r"images\[0\] \(a.png\): 2 categories, cat, dog; several labels an image need --task multilabel"),
        ({"annotations": DOCUMENT["annotations"][:2]}, r"images\[1\] \(b.png\): no annotation"),
        ({"annotations": [{"image_id": 0, "category_id": 7}]}, "no category has the id 7"),
        ({"categories": None}, "not a COCO file: categories is not a list"),
        ({"images": [{"id": 1}]}, r"images\[0\] has no id and file_name"),
        ({"images": [{"id": [1], "file_name": "a.png"}]}, r"images\[0\] has no id and file_name"),
        ({"images": [{"id": 0, "file_name": "z.png"}]}, r"images\[0\]: z\.png: no such file"),
    ],
)  # fmt: skip
def test_what_is_not(coco, changes, message):
    with pytest.raises(DataError, match=rf"x\.json: {message}"):
        read_data_files(coco(**changes))
