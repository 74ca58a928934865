"""The images that judged and that a run finds hardest."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from vptkit.tune.data.splits import Split
from vptkit.tune.training_page.hardest_images import cards, hardest_images

LABELS = ("<b>", "cat")


@pytest.fixture
def split(tmp_path):
    """Eight images of two classes, the last of which is gone."""
    paths = []
    for i in range(8):
        paths.append(tmp_path / "d" / f"{i}.jpg")
        paths[-1].parent.mkdir(exist_ok=True)
        exif = Image.Exif()
        exif[0x010E] = "where I live"
        Image.new("RGB", (400, 300), (30 * i, 9, 9)).save(paths[-1], exif=exif)
    paths[-1].unlink()
    return Split(tuple(paths), np.array([0, 1] * 4), None)


def test_the_hardest_come_first_and_a_quarter_at_most(split, tmp_path):
    logits = np.zeros((6, 2), np.float32)
    logits[2], logits[4] = (3, -3), (1, -1)  # class 1 both: wrong, one of them surely
    places = np.array([2, 3, 5, 4, 7, 0])
    first, second = hardest_images(tmp_path / "d", split, places, logits, LABELS)
    assert (first.name, first.truth, first.answered) == ("5.jpg", "cat", "<b>")
    assert first.loss == pytest.approx(np.log1p(np.exp(6)))
    assert first.probability == pytest.approx(1 - first.of_truth)
    assert second.name == "7.jpg"
    shown = cards([first, second])
    assert shown[1]["image"] is None  # it cannot be read any more
    head, _, data = shown[0]["image"].partition(",")
    assert head == "data:image/jpeg;base64"
    small = Image.open(io.BytesIO(base64.b64decode(data)))
    assert max(small.size) <= 160
    assert not small.getexif()


def test_several_labels_are_told_by_their_thresholds(split, tmp_path):
    truth = np.array([[1, 1], [0, 0], [0, 1], [1, 0]], np.float32)
    several = Split(split.images[:4], truth, None)
    logits = np.array([[5, 5], [4, -4], [-5, 5], [5, -5]], np.float32)
    thresholds = np.array([0.5, 0.5], np.float32)
    (one,) = hardest_images(tmp_path / "d", several, np.arange(4), logits, LABELS, thresholds)
    assert (one.name, one.truth, one.answered) == ("1.jpg", "nothing", "<b>")
    assert one.probability is one.of_truth is None


def test_nothing_is_ranked_that_says_nothing(split, tmp_path):
    logits = np.full((2, 2), np.nan, np.float32)
    assert hardest_images(tmp_path, split, np.arange(2), logits, LABELS) == ()
    assert hardest_images(tmp_path, split, np.arange(0), logits[:0], LABELS) == ()


def test_long_names_keep_both_ends(split, tmp_path):
    logits = np.zeros((4, 2), np.float32)
    labels = ("a" * 200, "b" * 100 + "end")
    (one,) = cards(hardest_images(tmp_path / "d", split, np.arange(4), logits, labels))
    assert len(one["truth"]) <= 60
