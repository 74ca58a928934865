from __future__ import annotations

import json
import pickle  # noqa: TID251 -- images are sent to other processes
import sys

import pytest

from tests.support.image_archives import png
from vptkit.errors import DataError, MissingExtraError
from vptkit.runtime.inputs import row_images
from vptkit.runtime.inputs.lookup import Lookup
from vptkit.runtime.inputs.row_images import walk_rows, walk_saved


@pytest.fixture
def arrow():
    return pytest.importorskip("pyarrow")


def written(arrow, file, images, **options):
    column = arrow.array(
        images, arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    )
    table = arrow.table({"id": range(len(images)), "image": column})
    pytest.importorskip("pyarrow.parquet").write_table(table, file, **options)
    return file


def test_a_row_is_an_image(arrow, tmp_path):
    images = [{"bytes": png(i), "path": f"{i}.png"} for i in range(7)]
    file = written(arrow, tmp_path / "a.parquet", images, row_group_size=3)
    found = list(walk_rows(file, Lookup()))
    assert [str(image) for image in found] == [f"{file}: row {i}" for i in range(7)]
    assert found[4].name == "row 4"
    assert [image.read_bytes() for image in found] == [png(i) for i in range(7)]
    assert pickle.loads(pickle.dumps(found[5])).read_bytes() == png(5)


def test_rows_without_bytes(arrow, tmp_path):
    (tmp_path / "here.png").write_bytes(png(1))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "here.png").write_bytes(png(2))
    paths = [None, "here.png", "../here.png", "nowhere.png", "x" * 5000]
    images = [{"bytes": None, "path": path} for path in paths]
    file = written(
        arrow, tmp_path / "set" / "a.parquet", [*images, {"bytes": png(3), "path": None}]
    )
    found = list(walk_rows(file, Lookup()))
    assert [found[1].read_bytes(), found[5].read_bytes()] == [png(2), png(3)]
    for row, reason in (
        (0, "no image"),
        (2, "expected it in"),
        (3, "no such file"),
        (4, "no image"),
    ):
        with pytest.raises(DataError, match=rf"a\.parquet: row {row}: .*{reason}"):
            found[row].read_bytes()
    assert list(walk_rows(file, Lookup(allow_outside=True)))[2].read_bytes() == png(1)


def test_an_image_that_is_too_large(arrow, tmp_path, monkeypatch):
    monkeypatch.setattr(row_images, "MAX_BYTES", 10)
    file = written(arrow, tmp_path / "a.parquet", [{"bytes": bytes(11), "path": None}])
    (image,) = walk_rows(file, Lookup())
    with pytest.raises(DataError, match="row 0: more than 10 bytes"):
        image.read_bytes()


def test_a_saved_data_set_with_splits_of_any_name(arrow, tmp_path):
    names = ["train", "odd"]
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": names}))
    for number, name in enumerate(names):
        (tmp_path / name).mkdir()
        table = arrow.table({"image": [png(number), png(number + 5)], "label": [0, 1]})
        with arrow.ipc.new_stream(tmp_path / name / "data.arrow", table.schema) as stream:
            stream.write_table(table, max_chunksize=1)
        state = {"_data_files": [{"filename": "data.arrow"}]}
        (tmp_path / name / "state.json").write_text(json.dumps(state))
    found = list(walk_saved(tmp_path, Lookup()))
    assert [str(image) for image in found] == [
        f"{tmp_path / name / 'data.arrow'}: row {row}" for name in names for row in (0, 1)
    ]
    assert [image.read_bytes() for image in found] == [png(i) for i in (0, 5, 1, 6)]


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and more")
    with pytest.raises(MissingExtraError, match=r'pip install "vptkit\[data\]"'):
        list(walk_rows(tmp_path / "a.parquet", Lookup()))
