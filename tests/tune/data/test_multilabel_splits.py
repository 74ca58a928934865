"""Splits and parts of images with several labels."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vptkit.errors import DataError
from vptkit.tune.data.cross_validation_parts import NEVER, cross_validation_parts
from vptkit.tune.data.label_strata import label_strata
from vptkit.tune.data.multilabel_splits import load_label_splits
from vptkit.tune.data.splits import class_counts, data_digest, splits_line

LABELS = ("a", "b", "c")


def labels_of(number: int) -> list[str]:
    return [label for label, every in zip(LABELS, (2, 3, 10), strict=True) if number % every == 0]


@pytest.fixture
def listed(tmp_path):
    """A function: split → numbers of its images → a JSON file of them."""

    def write(**splits):
        document = {}
        for split, numbers in splits.items():
            part = document.setdefault(split, {})
            for number in numbers:
                (tmp_path / f"{number}.png").write_bytes(b"%d" % number)
                part[f"{number}.png"] = labels_of(number)
        file = tmp_path / "x.json"
        file.write_text(json.dumps(document if set(splits) != {"all"} else document["all"]))
        return file

    return write


def test_drawn_splits_have_every_label_by_its_share(listed):
    labels, splits = load_label_splits(listed(all=range(120)), 0, 0.15, 0.15)
    assert labels == LABELS
    counts = class_counts(labels, splits)
    assert counts["val"] == counts["test"] == {"a": 9, "b": 6, "c": 2}
    assert counts["train"] == {"a": 42, "b": 28, "c": 8}
    names = {name: {image.name for image in split.images} for name, split in splits.items()}
    assert len(names["train"] | names["val"] | names["test"]) == 120
    for split in splits.values():
        assert split.targets.dtype == np.float32
        for image, row in zip(split.images, split.targets, strict=True):
            assert [LABELS[i] for i in np.flatnonzero(row)] == labels_of(int(image.stem))
    again = load_label_splits(listed(all=range(120)), 0, 0.15, 0.15)[1]
    assert data_digest(again) == data_digest(splits)
    assert data_digest(load_label_splits(listed(all=range(120)), 1, 0.15, 0.15)[1]) != data_digest(
        splits
    )


def test_the_line_of_what_was_read(listed, tmp_path):
    """The list of the labels is no file that was skipped."""
    listed(train=range(4), test=range(4, 7)).rename(tmp_path / "labels.json")
    labels, splits = load_label_splits(tmp_path, 0, 0.15, 0.15)
    line = splits_line(tmp_path, labels, splits)
    assert line == f"{tmp_path.name}: 3 labels (a, b, c), train 4, test 3"


def test_few_images_are_all_for_training(listed):
    assert set(load_label_splits(listed(all=range(20)), 0, 0.15, 0.15)[1]) == {"train"}


def test_named_splits_stay_and_a_small_val_joins(listed):
    _, splits = load_label_splits(listed(train=range(40), val=range(40, 80)), 0, 0.15, 0.15)
    assert {name: len(split.images) for name, split in splits.items()} == {"train": 40, "val": 40}
    _, splits = load_label_splits(listed(train=range(40), val=range(40, 44)), 0, 0.15, 0.15)
    assert (set(splits), splits["train"].joined) == ({"train"}, 4)
    assert len(splits["train"].images) == 44


def test_what_is_odd_about_labels_is_said(listed):
    file = listed(train=range(2, 10, 2), test=range(10, 60))  # all of train have a, none has c
    labels, splits = load_label_splits(file, 0, 0.15, 0.15)
    assert labels == ("a", "b")
    none, every = splits["train"].notes
    assert "no training image has 1 label (c); left out" in none
    assert "every training image has 1 label (a)" in every
    assert splits["test"].targets.shape == (50, 2)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"test": range(6)}, "no training images, only test"),
        ({"train": [1]}, "no image has a label"),
    ],
)
def test_nothing_to_learn_from(listed, splits, message):
    with pytest.raises(DataError, match=message):
        load_label_splits(listed(**splits), 0, 0.15, 0.15)


def test_cross_validation_holds_every_label_out_evenly():
    rng = np.random.default_rng(0)
    targets = (rng.random((53, 4)) < (0.5, 0.2, 0.1, 0.9)).astype(np.float32)
    parts = cross_validation_parts(targets, 0)
    assert np.bincount(parts).min() >= 10
    for column in targets.T:
        held = np.bincount(parts, weights=column, minlength=5)
        assert held.max() - held.min() <= 2
    assert sorted(cross_validation_parts(targets[:3], 0)) == [0, 1, 2]
    assert cross_validation_parts(targets[:1], 0).tolist() == [NEVER]


def test_strata_without_labels_keep_their_shares():
    parts = label_strata(np.zeros((20, 2), np.float32), [0.7, 0.3], np.random.default_rng(0))
    assert np.bincount(parts).tolist() == [14, 6]
