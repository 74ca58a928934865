"""Parquet files and saved data sets: what is read, and what is refused."""

from __future__ import annotations

import errno
import io
import json
import os
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
    with pytest.raises(DataError, match="23 files lie outside of this data set, the first is"):
        load_splits(tmp_path / "a.parquet", 0, 0.15, 0.15)
    found = load_splits(tmp_path / "a.parquet", 0, 0.15, 0.15, allow_outside=True)[1]
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


# ---- files from strangers -----------------------------------------------------------------------


def saved(tmp_path, table, **options):
    """One table as a saved data set; options are pyarrow's of how it is written."""
    pa = pytest.importorskip("pyarrow")
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}')
    (tmp_path / "dataset_info.json").write_text("{}")
    written = pa.ipc.IpcWriteOptions(**options)
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema, options=written) as stream:
        stream.write_table(table)
    return tmp_path


def two_images():
    pa = pytest.importorskip("pyarrow")
    return pa.table({"image": [b"im", b"age"], "label": [0, 1]})


@pytest.mark.parametrize("offsets", [(0, 2, 1 << 30), (0, 4, 2), (0, -9, 5), (-5, 0, 5)])
def test_offsets_beyond_the_file_are_not_followed(tmp_path, offsets):
    """Of old, memory beyond the file was read, and became pixels."""
    file = saved(tmp_path, two_images()) / "a.arrow"
    good = np.int32([0, 2, 5]).tobytes()
    assert file.read_bytes().count(good) == 1
    file.write_bytes(file.read_bytes().replace(good, np.int32(offsets).tobytes()))
    assert_unreadable(tmp_path, r"a\.arrow: ")


def test_paths_that_are_no_text(tmp_path):
    pa = pytest.importorskip("pyarrow")
    raw = pa.array([b"\xff\xfe"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 1, raw.buffers())
    image = pa.StructArray.from_arrays([pa.array([b"x"]), text], ["bytes", "path"])
    assert_unreadable(saved(tmp_path, pa.table({"image": image, "label": [1]})), r"a\.arrow: ")


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_batches_are_refused_before_they_fill_the_memory(tmp_path, codec):
    pa = pytest.importorskip("pyarrow")
    if not pa.Codec.is_available(codec):
        pytest.skip(f"this pyarrow has no {codec}")
    bomb = pa.table({"image": [bytes(1 << 20)], "label": [1]})
    root = saved(tmp_path, bomb, compression=codec)
    assert (root / "a.arrow").stat().st_size < 1 << 15
    before = pa.total_allocated_bytes()
    assert_unreadable(root, r"a\.arrow: its batches are compressed")
    assert pa.total_allocated_bytes() - before < 1 << 19


def test_compressed_dictionaries_are_refused_too(tmp_path):
    pa = pytest.importorskip("pyarrow")
    words = pa.array(["x" * 100_000, "y"]).dictionary_encode()
    made = pa.table({"image": [b"a", b"b"], "label": words})
    assert_unreadable(saved(tmp_path, made, compression="zstd"), "its batches are compressed")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            '{"_data_files": [{"filename": "../a.arrow"}]}',
            r"'\.\./a\.arrow' is not the name of a file",
        ),
        ('{"_data_files": [{"filename": "/etc/passwd"}]}', "is not the name of a file"),
        ('{"_data_files": [{"filename": 3}]}', "3 is not the name of a file"),
        ('{"_data_files": ["a.arrow"]}', "None is not the name of a file"),
        ('{"_data_files": [{}]}', "None is not the name of a file"),
        ('{"_data_files": {"filename": "a.arrow"}}', "not as Hugging Face's save_to_disk"),
        ('{"_data_files": [{"filename": "a\\u0000b"}]}', "is not the name of a file"),
        ("[" * 100_000, "not valid JSON"),
        ('["_data_files"]', "not a JSON object"),
    ],
)
def test_a_state_that_is_wrong(tmp_path, state, message):
    root = saved(tmp_path, two_images())
    (root / "state.json").write_text(state)
    assert_unreadable(root, rf"state\.json: {message}|{message}")


def test_splits_that_lead_elsewhere(splits, tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "data").mkdir()
    write_saved(splits, tmp_path / "private")
    (tmp_path / "data" / "train").symlink_to(tmp_path / "private" / "train")
    (tmp_path / "data" / "test").symlink_to(tmp_path / "private" / "test")
    (tmp_path / "data" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DataError, match="2 files lie outside of this data set"):
        load_splits(tmp_path / "data", 0, 0.15, 0.15)
    assert load_splits(tmp_path / "data", 0, 0.15, 0.15, allow_outside=True)
    (tmp_path / "data" / "dataset_dict.json").write_text('{"splits": ["../private/train"]}')
    assert_unreadable(tmp_path / "data", r"a split is called '\.\./private/train'")
    (tmp_path / "data" / "dataset_dict.json").write_text('{"splits": [7]}')
    assert_unreadable(tmp_path / "data", r"a split is called 7")


def test_tables_that_are_no_files(tmp_path):
    root = saved(tmp_path, two_images())
    (root / "a.arrow").unlink()
    os.mkfifo(root / "a.arrow")
    assert_unreadable(root, r"a\.arrow: a FIFO, expected a regular file")
    os.mkfifo(tmp_path / "b.parquet")
    (tmp_path / "state.json").unlink()
    assert_unreadable(tmp_path, r"b\.parquet: a FIFO, expected a regular file")


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("[" * 100_000, "not valid JSON"),
        ('{"info": 3}', "info is no object"),
        ('{"info": {"features": [1]}}', "features is no object"),
        (
            '{"info": {"features": {"label": {"_type": "ClassLabel", "names": 3}}}}',
            "no list of names",
        ),
        ('{"info": {"features": {"label": {"_type": "ClassLabel", "names": [3]}}}}', "no list of"),
    ],
)
def test_metadata_that_is_wrong(tmp_path, features, message):
    made = two_images().replace_schema_metadata({"huggingface": features})
    assert_unreadable(saved(tmp_path, made), message)


def test_columns_that_are_wrong(tmp_path):
    pa = pytest.importorskip("pyarrow")
    labels = pa.array([1, 2])
    twice = pa.table([pa.array([b"a", b"b"]), labels, labels], ["image", "label", "label"])
    assert_unreadable(saved(tmp_path, twice), "several columns are called 'label'")
    numbers = pa.array([{"bytes": 1, "path": "x"}, {"bytes": 2, "path": "y"}])
    made = pa.table({"image": numbers, "label": labels})
    assert_unreadable(saved(tmp_path, made), "expected one column of images")
    late = pa.array([1 << 62, 1], pa.timestamp("s"))
    assert_unreadable(
        saved(tmp_path, pa.table({"image": [b"a", b"b"], "label": late})), "a.arrow: "
    )
    long = pa.table({"image": [b"a", b"b"], "label": ["x" * 2000, "y"]})
    assert_unreadable(saved(tmp_path, long), "row 0: its label has 2,000 characters")
    paths = pa.array([{"bytes": b"a", "path": "x" * 5000}, {"bytes": b"b", "path": "y"}])
    made = pa.table({"image": paths, "label": labels})
    assert_unreadable(saved(tmp_path, made), "row 0: a path of 5000 characters")
