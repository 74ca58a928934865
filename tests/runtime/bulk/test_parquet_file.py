from __future__ import annotations

import json
from pathlib import Path

import pytest

from vptkit.runtime.bulk import parquet_file
from vptkit.runtime.bulk.prediction_writers import saving
from vptkit.runtime.session.session_protocol import Prediction

parquet = pytest.importorskip("pyarrow.parquet")


def test_rows_and_what_made_them(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_file, "_ROWS", 2)
    good = Prediction(path=Path("a\udcff"), adapter="x", top=(("r", 0.75), ("b", 0.25)))
    broken = Prediction(path=Path("b"), adapter="x", error="b: broken")
    with saving(tmp_path / "x.parquet", top_k=2, about={"bundle": "abc"}) as write:
        for prediction in (good, broken, good):
            write(prediction)
    file = parquet.ParquetFile(tmp_path / "x.parquet")
    assert file.num_row_groups == 2
    assert json.loads(file.schema_arrow.metadata[b"vptkit"]) == {"bundle": "abc"}
    first, second, third = file.read().to_pylist()
    assert (
        first
        == third
        == {
            "path": r"a\udcff",
            "adapter": "x",
            "error": None,
            "label": "r",
            "score": 0.75,
            "top_labels": ["r", "b"],
            "top_scores": [0.75, 0.25],
        }
    )
    assert (second["error"], second["label"], second["top_labels"]) == ("b: broken", None, None)


def test_several_labels_and_rejection(tmp_path):
    given = Prediction(
        path=Path("a"), adapter="x", top=(("r", 0.7),), labels=(), rejected=True, typicality=0.01
    )
    with saving(tmp_path / "x.parquet", top_k=1, rejects=True, several=True) as write:
        write(given)
    (row,) = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert (row["labels"], row["scores"], row["rejected"]) == ([], [], True)
