"""The training image that is most like another one."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("onnxruntime")

from vptkit.errors import DataError
from vptkit.report import nearest_images
from vptkit.report.nearest_images import nearest_training_images
from vptkit.runtime.session.factory import open_session


@pytest.fixture
def splits(colour_folders, tmp_path):
    """train/ and test/ of the same colours."""
    for name in ("train", "test"):
        shutil.copytree(colour_folders, tmp_path / "data" / name)
    return tmp_path / "data"


def test_the_nearest_has_the_colour(make_bundle, splits):
    (splits / "test" / "blue" / "broken.png").write_bytes(b"no")
    asked = [splits / "test" / name for name in ("green/3.png", "blue/broken.png", "red/0.png")]
    with open_session(make_bundle(gives=("logits", "features")), "cpu") as session:
        (blue, none, red), compared = nearest_training_images(session, asked, splits)
    assert compared == 12
    assert none is None
    assert blue.image == splits / "train" / "green" / "3.png", "the very same picture"
    assert (blue.label, red.label) == ("green", "red")
    assert red.cosine == pytest.approx(1, abs=1e-6)


def test_of_many_some_are_compared(make_bundle, splits, monkeypatch):
    monkeypatch.setattr(nearest_images, "MOST", 3)
    with open_session(make_bundle(gives=("logits", "features")), "cpu") as session:
        _, compared = nearest_training_images(session, [splits / "test/red/0.png"], splits)
    assert compared == 3


def test_without_training_images(make_bundle, colour_folders):
    with (
        open_session(make_bundle(gives=("logits", "features")), "cpu") as session,
        pytest.raises(DataError, match="train"),
    ):
        nearest_training_images(session, [], colour_folders)
