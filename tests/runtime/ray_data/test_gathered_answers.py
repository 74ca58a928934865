from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vptkit.errors import OutputError
from vptkit.runtime.bulk.prediction_record import record_of
from vptkit.runtime.ray_data.gathered_answers import GatheredAnswers, remember
from vptkit.runtime.session.prediction import Prediction

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def answers(batch, mark=""):
    """Two images a batch."""
    paths = [Path(f"{2 * batch + i}{mark}.png") for i in range(2)]
    return [Prediction(path=path, index=2 * batch, adapter="a") for path in paths]


def write(folder, name, batches, mark="", backend="cpu"):
    folder.mkdir(exist_ok=True)
    texts = [
        "\n".join(json.dumps(record_of(each, features=False)) for each in answers(batch, mark))
        for batch in batches
    ]
    columns = {"id": batches, "answers": texts, "backend": [backend] * len(batches)}
    parquet.write_table(arrow.table(columns), folder / name)


def paths(gathered):
    return [str(each.path) for each in gathered]


def test_order_of_the_sources(tmp_path):
    write(tmp_path, "1.parquet", [4, 0, 2])
    write(tmp_path, "0.parquet", [3, 1], backend="cuda")
    gathered = GatheredAnswers(tmp_path, 5)
    assert gathered.missing == 0
    assert paths(gathered) == [f"{i}.png" for i in range(10)]
    assert list(gathered) == [each for batch in range(5) for each in answers(batch)]
    assert gathered.backends == ["cpu", "cuda"]


def test_what_is_there_twice_is_told_once(tmp_path):
    """A part that Ray's notes do not know is written again by the next run."""
    write(tmp_path, "a.parquet", [0, 1])
    write(tmp_path, "b.parquet", [1, 2, 1], mark=" again")
    write(tmp_path, "c.parquet", [0, 2], mark=" and again")
    gathered = GatheredAnswers(tmp_path, 3)
    assert gathered.missing == 0
    assert paths(gathered) == ["0.png", "1.png", "2.png", "3.png", "4 again.png", "5 again.png"]


def test_half_a_part_and_strangers_do_not_count(tmp_path):
    write(tmp_path, "a.parquet", [0])
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.parquet").touch()
    parquet.write_table(arrow.table({"x": [1]}), tmp_path / "d.parquet")
    write(tmp_path, "e.parquet", [-1, 3])
    gathered = GatheredAnswers(tmp_path, 3)
    assert (gathered.missing, gathered.ids.tolist()) == (2, [0])
    assert paths(gathered) == ["0.png", "1.png"]


def test_nothing_yet(tmp_path):
    gathered = GatheredAnswers(tmp_path / "gone", 3)
    assert (gathered.missing, list(gathered), gathered.backends) == (3, [], [])


def test_many_parts(tmp_path):
    for part in range(40):
        write(tmp_path, f"{part:02}.parquet", list(range(part, 400, 40)))
    gathered = GatheredAnswers(tmp_path, 400)
    assert paths(gathered) == [f"{i}.png" for i in range(800)]


def test_a_part_that_goes_away_meanwhile(tmp_path):
    write(tmp_path, "a.parquet", [0])
    gathered = GatheredAnswers(tmp_path, 1)
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(OutputError, match="changed while it was read"):
        list(gathered)


def test_notes_are_made_of_what_is_there(tmp_path):
    write(tmp_path / "answers", "a.parquet", [2, 0])
    notes = tmp_path / "checkpoint"
    notes.mkdir()
    (notes / "old.pending.parquet").touch()
    remember(GatheredAnswers(tmp_path / "answers", 4), notes, "id")
    (file,) = notes.iterdir()
    assert parquet.read_table(file).to_pydict() == {"id": [0, 2]}
    assert parquet.read_schema(file).field("id").type == arrow.int64()
    remember(GatheredAnswers(tmp_path / "none", 4), notes, "id")
    assert list(notes.iterdir()) == []
    assert np.array_equal(GatheredAnswers(tmp_path / "answers", 4).ids, [0, 2])
