"""Names of splits, and the order of classes and images."""

from __future__ import annotations

from pathlib import Path

import pytest

from vptkit.errors import DataError
from vptkit.images.labelled_images import Row, group_rows, split_of_file, split_of_name

# ---- names of splits ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("train-000000.tar", "train"),
        ("train/0.tar", "train"),
        ("data/validation-00000-of-00002.parquet", "val"),
        ("birds_dev.tar", "val"),
        ("val2017.tar", "val"),
        ("Eval.01.tar", "test"),
        ("ood/7.tar", "ood"),
        ("trains-000.tar", ""),
        ("00000.tar", ""),
        ("test/test-1.tar", "test"),
    ],
)
def test_the_split_in_a_files_name(file, split):
    root = Path("/data/train")  # what lies above does not count
    assert split_of_file(root / file, root) == split


def test_two_splits_in_a_files_name():
    with pytest.raises(DataError, match=r"train/test\.tar: the name tells two splits"):
        split_of_file(Path("/d/train/test.tar"), Path("/d"))


def test_words_for_splits():
    assert [split_of_name(name) for name in (" Valid", "evaluation", "ood", "holdout")] == [
        *("val", "test", "ood"),
        None,
    ]


# ---- rows ---------------------------------------------------------------------------------------


def row(label: str | int, split: str = "", name: str = "x.png") -> Row:
    return Row(split, label, Path(name))


@pytest.mark.parametrize(
    ("labels", "names", "order"),
    [
        (("b", "a", "b"), None, ["a", "b"]),
        ((10, 9, 1), None, ["1", "9", "10"]),
        (("10", "9", "1"), None, ["1", "10", "9"]),  # words, as folders are called
        ((0, 2, 1), ("z", "y", "x"), ["z", "y", "x"]),
        (("x", 0), ("z", "y", "x"), ["z", "x"]),  # names without images are no classes
        (("e\u0301", "z", "\u00e9"), None, ["z", "\u00e9"]),  # one name, composed or not
        (("\u00e9", "x"), ("x", "e\u0301"), ["x", "\u00e9"]),
    ],
)
def test_the_order_of_classes(labels, names, order):
    found = group_rows(Path("d"), [row(label) for label in labels], names)
    assert list(found) == [""]
    assert list(found[""]) == order


def test_images_keep_their_order_in_a_class():
    names = ["c", "a", "b"]
    found = group_rows(Path("d"), [row(i % 2, "train", names[i]) for i in range(3)])
    assert found == {"train": {"0": [Path("c"), Path("b")], "1": [Path("a")]}}
