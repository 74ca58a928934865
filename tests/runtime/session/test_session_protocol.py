"""What every session does: images are checked, files are predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.noise_images import noise
from vptkit.errors import (
    DataError,
)
from vptkit.runtime.session.factory import open_session
from vptkit.runtime.session.session_protocol import Prediction

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("images", "came"),
    [
        (noise(2).astype(np.float32), r"float32 \[2, 24, 16, 3\]"),
        (noise(2)[0], r"uint8 \[24, 16, 3\]"),
        (noise(2).transpose(0, 3, 1, 2), r"uint8 \[2, 3, 24, 16\]"),
        (noise(2)[:, :-1], r"uint8 \[2, 23, 16, 3\]"),
        ([[1, 2]], "list"),
    ],
)
def test_other_images_are_refused(make_bundle, images, came):
    session = open_session(make_bundle())
    with pytest.raises(
        DataError, match=rf"images: came as {came}, expected uint8 \[B, 24, 16, 3\]"
    ):
        session.run(images)


def test_predict_of_a_session(make_bundle, colour_folders: Path):
    found = list(open_session(make_bundle()).predict([colour_folders / "red"], top_k=1))
    assert [p.top[0][0] for p in found] == ["red"] * 4


def test_json(tmp_path):
    good = Prediction(path=tmp_path / "a.jpg", adapter="x", top=(("cat", 0.75), ("dog", 0.25)))
    bad = Prediction(path=tmp_path / "b.jpg", adapter="x", error="broken")
    assert good.to_json() == {
        "path": str(tmp_path / "a.jpg"),
        "adapter": "x",
        "top": [{"label": "cat", "score": 0.75}, {"label": "dog", "score": 0.25}],
    }
    assert bad.to_json() == {"path": str(tmp_path / "b.jpg"), "adapter": "x", "error": "broken"}
