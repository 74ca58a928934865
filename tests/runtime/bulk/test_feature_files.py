"""Features in files: what numpy and pyarrow read back, whole or not at all."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vptkit.errors import MissingExtraError, OutputError
from vptkit.runtime.bulk import feature_files
from vptkit.runtime.bulk.feature_files import require_features_file, saving_features
from vptkit.runtime.session.session_protocol import Prediction


def predictions(count):
    random = np.random.default_rng(0)
    for i in range(count):
        top = ((f"class {i % 3}", 0.5 + i / 1000),)
        features = random.normal(size=4).astype(np.float32)
        yield Prediction(path=Path(f"{i}.png"), index=i, adapter="a", top=top, features=features)


def written(path, rows):
    with saving_features(path, width=4) as write:
        for row in rows:
            write(row)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_npy_and_its_names(tmp_path, count):
    rows = list(predictions(count))
    written(tmp_path / "x.npy", rows)
    found = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert (found.shape, found.dtype) == ((count, 4), np.float32)
    assert all(np.array_equal(a, b.features) for a, b in zip(found, rows, strict=True))
    with (tmp_path / "x.npy.csv").open(encoding="utf-8", newline="") as stream:
        head, *names = csv.reader(stream)
    assert head == ["path", "adapter", "label", "score"]
    assert names == [[str(p.path), "a", str(p.label), str(p.score)] for p in rows]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.npy", "x.npy.csv"]


def test_parquet_in_several_row_groups(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(feature_files, "_ROWS", 3)
    rows = list(predictions(7))
    written(tmp_path / "x.parquet", rows)
    file = parquet.ParquetFile(tmp_path / "x.parquet")
    assert file.metadata.num_row_groups == 3  # rows went to the disk as they came
    table = file.read().to_pydict()
    assert list(table) == ["path", "adapter", "label", "score", "features"]
    assert table["path"] == [str(p.path) for p in rows]
    assert table["score"] == [p.score for p in rows]
    assert np.array_equal(np.float32(table["features"]), [p.features for p in rows])


def test_parquet_without_images_has_its_columns(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    written(tmp_path / "x.parquet", [])
    assert parquet.read_table(tmp_path / "x.parquet").num_rows == 0


@pytest.mark.parametrize("name", ["x.npy", "x.parquet"])
def test_a_name_that_is_not_utf_8_and_a_broken_image(tmp_path, name):
    pytest.importorskip("pyarrow")
    odd, broken = (
        Prediction(path=Path(f"\udcff{i}.png"), adapter="a", error=error, features=features)
        for i, error, features in ((0, None, np.ones(4, np.float32)), (1, "broken", None))
    )
    written(tmp_path / name, [odd, broken])
    if name == "x.npy":
        assert np.load(tmp_path / name).shape == (1, 4)
        lines = (tmp_path / "x.npy.csv").read_text(encoding="utf-8").splitlines()
        assert lines[1:] == ["\\udcff0.png,a,,"]
    else:
        from pyarrow import parquet

        table = parquet.read_table(tmp_path / name).to_pydict()
        assert (table["path"], table["label"]) == (["\\udcff0.png"], [None])


@pytest.mark.parametrize("name", ["x.npy", "x.parquet"])
def test_a_failure_leaves_nothing(tmp_path, name):
    pytest.importorskip("pyarrow")

    def rows():
        yield from predictions(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        written(tmp_path / name, rows())
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_not_replaced(tmp_path):
    (tmp_path / "x.npy.csv").write_text("mine")
    with pytest.raises(OutputError, match=r"x\.npy\.csv: exists already"):
        require_features_file(tmp_path / "x.npy")
    with saving_features(tmp_path / "x.npy", width=4, force=True) as write:
        write(next(predictions(1)))
    assert (tmp_path / "x.npy.csv").read_text() != "mine"


def test_another_suffix_and_no_pyarrow(tmp_path, monkeypatch):
    with pytest.raises(OutputError, match=r"\.npy or \.parquet, not '\.csv'"):
        require_features_file(tmp_path / "x.csv")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"vptkit\[data\]"):
        require_features_file(tmp_path / "x.parquet")
    require_features_file(tmp_path / "x.npy")


def test_several_labels_an_image_are_lists(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    given = [(("cat", 0.5), ("dog", 0.25)), ()]
    rows = [replace(row, labels=labels) for row, labels in zip(predictions(2), given, strict=True)]
    for name in ("x.npy", "x.parquet"):
        with saving_features(tmp_path / name, width=4, several=True) as write:
            for row in rows:
                write(row)
    table = parquet.read_table(tmp_path / "x.parquet")
    assert table["labels"].to_pylist() == [["cat", "dog"], []]
    assert table["scores"].to_pylist() == [[0.5, 0.25], []]
    with (tmp_path / "x.npy.csv").open(encoding="utf-8", newline="") as stream:
        assert [line[2:] for line in csv.reader(stream)] == [
            ["labels", "scores"],
            ['["cat", "dog"]', "[0.5, 0.25]"],
            ["[]", "[]"],
        ]
