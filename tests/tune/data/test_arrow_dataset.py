"""Parquet files and saved data sets: what is read, and what is refused."""

from __future__ import annotations

import errno
import io
import json
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
from tests.support.dataset_formats import (  # noqa: E402
    NAMES,
    PREPROCESS,
    assert_unreadable,
    entries,
    table,
    write_parquet,
    write_saved,
)
from vptkit.errors import DataError, MissingExtraError, OutputError  # noqa: E402
from vptkit.tune.data import arrow_dataset  # noqa: E402
from vptkit.tune.data.dataset import DataSet  # noqa: E402
from vptkit.tune.data.splits import data_digest, load_splits  # noqa: E402

# ---- the same pixels ----------------------------------------------------------------------------


def test_labels_that_are_plain_numbers(splits, tmp_path):
    labels, found = load_splits(write_parquet(splits, tmp_path, "numbers"), 0, 0.15, 0.15)
    assert labels == ("0", "1", "2")
    assert found["train"].images[0].name == "0.png"
    assert found["train"].targets.tolist() == [0] * 8 + [1] * 8 + [2] * 8


def test_images_that_the_table_only_points_to(splits, tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [(label, file) for s, label, file in entries(splits) if s == "train"]
    images = [{"bytes": None, "path": str(file)} for _, file in rows]
    images[0]["bytes"] = rows[0][1].read_bytes()
    made = pa.table({"image": images, "label": [label for label, _ in rows]})
    parquet.write_table(made, tmp_path / "a.parquet")
    found = load_splits(tmp_path / "a.parquet", 0, 0.15, 0.15)[1]
    assert data_digest(found) == data_digest(load_splits(splits / "train", 0, 0.15, 0.15)[1])
    images[3]["path"] = "nowhere.png"
    made = pa.table({"image": images, "label": [label for label, _ in rows]})
    parquet.write_table(made, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: holds no bytes of nowhere\.png"):
        load_splits(tmp_path / "a.parquet", 0, 0.15, 0.15)


def test_a_column_of_bytes_and_other_names(splits, tmp_path):
    """As in older files: `img` is binary, and of two label columns one is a ClassLabel."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [(label, file) for s, label, file in entries(splits) if s == "train"]
    features = {"kind": {"names": NAMES, "_type": "ClassLabel"}}
    made = pa.table(
        {
            "img": [file.read_bytes() for _, file in rows],
            "kind": [NAMES.index(label) for label, _ in rows],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(made, tmp_path / "a.parquet")
    labels, found = load_splits(tmp_path / "a.parquet", 0, 0.15, 0.15)
    assert labels == tuple(NAMES)
    assert found["train"].images[0].name.startswith("row ")
    assert len(DataSet(found["train"], PREPROCESS).prepared(np.arange(3))) == 3


# ---- what goes wrong ----------------------------------------------------------------------------


def test_parquet_that_is_wrong(splits, tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "a.parquet"

    def written(**arrays):
        parquet.write_table(pa.table(arrays), file)
        return file

    file.write_bytes(b"nothing of this kind")
    assert_unreadable(file, r"a\.parquet: ")
    assert_unreadable(
        written(text=["a"], label=[1]), r"one column of images.*It has text \(string\), label"
    )
    assert_unreadable(
        written(image=[b"a"], kind=[1]), r"and one of labels.*image \(binary\), kind \(int64\)"
    )
    assert_unreadable(written(image=[b"a", b"b"], label=[1, None]), r"row 1: its label is None")
    assert_unreadable(written(image=[b"a", b"b"], label=[0.5, 1.0]), r"row 0: its label is 0\.5")
    assert_unreadable(
        written(image=[b"a", b"b"], label=[[0, 1], [2]]), r"row 0: its label is \[0, 1\]"
    )
    assert_unreadable(written(image=[b"a", b"b"], label=[True, False]), r"row 0: its label is True")
    assert_unreadable(written(image=[b"a", b"b"], label=["x", ""]), r"row 1: its label is ''")
    assert_unreadable(written(image=[b"a", None], label=[1, 1]), r"row 1: no image")
    assert_unreadable(
        written(image=[b"a", b"b"], label=[1, -1]), r"row 1: its label is -1, expected 0"
    )
    assert_unreadable(
        written(image=pa.array([], pa.binary()), label=pa.array([], pa.int64())), "no images"
    )


def test_a_disk_that_is_full_for_what_is_unpacked(splits, tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    root = write_parquet(splits, tmp_path)
    monkeypatch.setattr(arrow_dataset.tempfile, "TemporaryFile", lambda prefix: Full())
    with pytest.raises(OutputError, match=r"no space left for .*test-00000.*Set TMPDIR"):
        load_splits(root, 0, 0.15, 0.15)


def test_files_with_other_class_names(splits, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(table(splits, "train", "ClassLabel"), tmp_path / "train.parquet")
    parquet.write_table(table(splits, "val", "words"), tmp_path / "val.parquet")
    assert_unreadable(tmp_path, r"val\.parquet: its class names differ")


def test_a_saved_data_set_that_is_wrong(splits, tmp_path):
    root = write_saved(splits, tmp_path)
    arrow = root / "test" / "data-00001-of-00002.arrow"
    arrow.write_bytes(b"no")
    assert_unreadable(root, r"data-00001-of-00002\.arrow: ")
    arrow.unlink()
    assert_unreadable(root, r"data-00001-of-00002\.arrow: ")
    (root / "test" / "state.json").write_text("{}")
    assert_unreadable(root, r"test/state\.json: not as Hugging Face's save_to_disk writes it")
    (root / "dataset_dict.json").write_text('{"splits": ["training", "holdout"]}')
    assert_unreadable(root, r"dataset_dict\.json: a split is called 'holdout', expected train, val")


def test_without_pyarrow(splits, tmp_path, monkeypatch):
    root = write_parquet(splits, tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pyarrow.*vptkit\[data\]"):
        load_splits(root, 0, 0.15, 0.15)
