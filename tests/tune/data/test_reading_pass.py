"""Every image once: what is broken, what is in two splits, and that nothing is decoded again for it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")
from vptkit.errors import DataError
from vptkit.images.broken_images import require_whole
from vptkit.images.preprocess import Preprocess
from vptkit.progress import SILENT
from vptkit.tune.data import dataset as data_module
from vptkit.tune.data.dataset import DataSet
from vptkit.tune.data.reading_pass import (
    Broken,
    Twice,
    read_all,
    skipped_record,
    twice,
    twice_record,
    twice_text,
    without_broken,
)
from vptkit.tune.data.splits import load_splits

PREPROCESS = Preprocess(input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=0.9)


@pytest.fixture
def data(make_folders, tmp_path):
    for seed, name in enumerate(("train", "val", "test")):
        make_folders(tmp_path / name, 5, seed)
    return tmp_path


def sets_of(data):
    labels, splits = load_splits(data, 0, 0.15, 0.15)
    return labels, {name: DataSet(split, PREPROCESS) for name, split in splits.items()}


def test_what_was_read_is_not_decoded_again(data, monkeypatch):
    _, sets = sets_of(data)
    reading = read_all(sets, SILENT)
    assert (reading.count, reading.broken) == (45, ())
    monkeypatch.setattr(data_module, "open_image", lambda *_, **__: pytest.fail("decoded again"))
    assert sum(len(images) for images, _ in sets["train"].evaluation_batches(4)) == 15


def test_without_the_broken_ones(data):
    (data / "train" / "green" / "0.png").write_bytes(b"no image")
    labels, sets = sets_of(data)
    reading = read_all(sets, SILENT)
    assert [(one.split, one.image.name, one.row) for one in reading.broken] == [
        ("train", "0.png", 5)
    ]
    with pytest.raises(
        DataError, match=r"1 of 45 images cannot be read.*green/0\.png: not an image"
    ):
        require_whole(data, reading.reasons, reading.count)
    kept, left = without_broken(data, labels, sets, reading)
    images = kept["train"].split.images
    assert [len(images), *np.bincount(kept["train"].split.targets)] == [14, 5, 4, 5]
    assert data / "train" / "green" / "0.png" not in images
    np.testing.assert_array_equal(left.looks["train"], np.delete(reading.looks["train"], 5))
    plain = DataSet(kept["train"].split, PREPROCESS)
    every = np.arange(14)
    np.testing.assert_array_equal(kept["train"].prepared(every), plain.prepared(every))
    assert twice(kept, left) == ()


def test_a_share_reads_its_own_images(data):
    (data / "train" / "green" / "0.png").write_bytes(b"no image")
    _, sets = sets_of(data)
    counts = [
        (found.count, len(found.broken))
        for k in (0, 1)
        for found in [read_all(sets, SILENT, (k, 2))]
    ]
    assert counts == [(24, 0), (21, 1)]


def test_copies_are_found_once_and_named_within_the_data(data):
    content = (data / "train" / "red" / "1.png").read_bytes()
    for name in ("test/red/0.png", "val/blue/2.png", "train/red/2.png"):
        (data / name).write_bytes(content)
    _, sets = sets_of(data)
    found = twice(sets, read_all(sets, SILENT))
    assert {one.splits for one in found} == {("val", "train"), ("test", "train"), ("test", "val")}
    assert len(found) == 3
    assert "3 images are in two splits" in twice_text(data, found)
    assert {"test": "test/red/0.png", "val": "val/blue/2.png"} in twice_record(data, found)


def test_of_many_the_first_are_named(tmp_path):
    many = [Broken("train", i, tmp_path / f"{i}.png", "why") for i in range(2000)]
    assert len(skipped_record(tmp_path, many)) == 100
    copies = [Twice(("test", "train"), (tmp_path / "a", tmp_path.parent / "b"))] * 7
    assert twice_text(tmp_path, copies).count("a is b") == 5
