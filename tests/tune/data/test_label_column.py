"""Lists of labels in Parquet files and saved data sets, as Hugging Face writes them."""

from __future__ import annotations

import json

import pytest

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
from tests.support.image_archives import png  # noqa: E402
from vptkit.arrow_files import parquet_bounds  # noqa: E402
from vptkit.datasets.multilabel_dataset import read_multilabel  # noqa: E402
from vptkit.errors import DataError  # noqa: E402
from vptkit.tune.data import label_column  # noqa: E402
from vptkit.tune.data.dataset_reader import read_label_archives, read_splits  # noqa: E402

NAMES = ["cat", "dog", "bird"]
NUMBERS = [[0, 1], [], [1]]
WORDS = [["cat", "dog"], [], ["dog"]]
CLASSES = {"_type": "ClassLabel", "names": NAMES}


def features(**columns):
    return {b"huggingface": json.dumps({"info": {"features": columns}}).encode()}


def save(root, table, kind):
    """A data set of one table, as Parquet or as save_to_disk writes it."""
    if kind == "parquet":
        parquet.write_table(table, root / "a.parquet")
        return root
    with pa.ipc.new_stream(root / "a.arrow", table.schema) as stream:
        stream.write_table(table)
    (root / "state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}')
    (root / "dataset_info.json").write_text("{}")
    return root


def with_images(metadata=None, **columns):
    images = pa.array([png(i) for i in range(len(next(iter(columns.values()))))])
    return pa.table({"image": images, **columns}).replace_schema_metadata(metadata)


def read(root):
    found = read_multilabel(root, dict, archived=lambda: read_label_archives(root))
    (part,) = found.splits.values()
    assert [image.read_bytes() for image in part.images] == [png(i) for i in range(len(part.truth))]
    return [[found.labels[i] for i in row.nonzero()[0]] for row in part.truth]


@pytest.mark.parametrize("kind", ["parquet", "saved"])
@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pa.array(WORDS, pa.list_(pa.string())), None),
        (pa.array(WORDS, pa.large_list(pa.large_string())), None),
        (pa.array(NUMBERS, pa.list_(pa.int64())), {"_type": "Sequence", "feature": CLASSES}),
        (pa.array(NUMBERS, pa.list_(pa.int16())), {"_type": "List", "feature": CLASSES}),
        (pa.array(NUMBERS, pa.list_(pa.int64())), [CLASSES]),
    ],
)
def test_lists_of_labels(tmp_path, column, told, kind):
    metadata = None if told is None else features(labels=told)
    save(tmp_path, with_images(metadata, id=pa.array([7, 8, 9]), labels=column), kind)
    assert read(tmp_path) == WORDS
    with pytest.raises(DataError, match=r"row 0: its label is \[.*\]; .* --task multilabel"):
        read_splits(tmp_path)


def test_numbers_without_names_and_one_label_each(tmp_path):
    (tmp_path / "a").mkdir()
    save(tmp_path / "a", with_images(label=pa.array(NUMBERS)), "parquet")
    assert read(tmp_path / "a") == [["0", "1"], [], ["1"]]
    (tmp_path / "b").mkdir()
    save(tmp_path / "b", with_images(features(label=CLASSES), label=pa.array([2, 0])), "saved")
    assert read(tmp_path / "b") == [["bird"], ["cat"]]


def test_a_column_of_lists_beside_one_of_single_labels(tmp_path):
    """The task says which is meant."""
    metadata = features(label=CLASSES, tags={"_type": "Sequence", "feature": CLASSES})
    columns = {"label": pa.array([2, 0, 0]), "tags": pa.array(NUMBERS)}
    save(tmp_path, with_images(metadata, **columns), "parquet")
    assert read(tmp_path) == WORDS
    assert list(read_splits(tmp_path)[""]) == ["cat", "bird"]


@pytest.mark.parametrize("kind", ["parquet", "saved"])
@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            pa.array([[0], None]),
            "row 1: its label is null; an image without labels has an empty list",
        ),
        (pa.array([["cat"], [None]]), "row 1: None among its labels"),
        (pa.array([[0], [-1]]), "row 1: its label is -1, expected 0 or more"),
        (pa.array([[0, 0, 1], [1, 1, 0]]), "row 0: its labels are 0, 0, 1, which may be a 0 or 1"),
        (
            pa.array([[0.5], [1.0]]),
            "its column labels is list<.*: double>, expected lists of whole",
        ),
        (pa.array([["x" * 5000], ["y"]]), "its label has 5,000 characters"),
        (pa.array([[0] * 10_001, [1]]), "10,001 labels, expected at most 10,000"),
    ],
)
def test_lists_that_are_wrong(tmp_path, column, message, kind):
    save(tmp_path, with_images(labels=column), kind)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_names_are_not_copied_for_every_image(tmp_path, monkeypatch):
    """A name that stands once in the file may be meant millions of times."""
    seen = []
    short = label_column._require_short
    monkeypatch.setattr(
        label_column,
        "_require_short",
        lambda place, words: (seen.append(words), short(place, words)),
    )
    save(tmp_path, with_images(labels=pa.array([["cat"] * 10_000, ["dog"]])), "parquet")
    assert read(tmp_path) == [["cat"], ["dog"]]
    assert [len(words) for words in seen] == [2]


def test_more_values_than_a_file_may_have(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_bounds, "_MOST_ROWS", 100)
    save(tmp_path, with_images(labels=pa.array([[1] * 60, [2] * 60])), "parquet")
    with pytest.raises(DataError, match=r"more than 100 values of labels\."):
        read(tmp_path)
