"""Images with all their labels, in the order of a bundle's; and lists whose labels do not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vptkit.errors import DataError
from vptkit.runtime.evaluation.multilabel_images import SeveralLabels, in_order, listed_images

TRUTH = np.asarray([[1, 0, 1], [0, 0, 1]], dtype=bool)
FOUND = SeveralLabels("test", ("dog", "owl", "cat"), (Path("0.png"), Path("1.png")), TRUTH)


def test_the_order_is_the_bundles_and_unused_columns_are_no_fault():
    truth = in_order(FOUND, ("cat", "cow", "dog"))  # owl is unknown, but no image has it
    assert truth.tolist() == [[True, False, True], [True, False, False]]


def test_names_are_one_however_they_are_spelled():
    found = FOUND._replace(labels=("dog", "owl", "cafe\u0301"))
    assert in_order(found, ("caf\u00e9", "dog")).tolist() == [[True, True], [True, False]]
    found = FOUND._replace(labels=("dog", "owl", "caf\u00e9"))
    assert in_order(found, ("cafe\u0301", "dog")).tolist() == [[True, True], [True, False]]


def test_labels_that_images_have_and_the_bundle_does_not_know():
    assert in_order(FOUND, ("cat", "owl")) == ("dog",)


def test_lists_whose_labels_do_not_matter(colour_folders):
    table = colour_folders / "list.csv"
    table.write_text("path,labels,split\nred/0.png,a;b,train\nred/1.png,a,val\nred/2.png,,val\n")
    found = listed_images(table, several=True)
    images = {
        name: {label: len(files) for label, files in of.items()} for name, of in found.items()
    }
    assert images == {"train": {"": 1}, "val": {"": 2}}
    with pytest.raises(DataError, match="has no label"):
        listed_images(table, several=False)
    for several in (False, True):  # class folders are read by whoever asks
        table.unlink(missing_ok=True)
        assert listed_images(colour_folders, several=several) is None
