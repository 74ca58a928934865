from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vptkit.errors import DataError
from vptkit.images.image_file import PackedImage, RecalledImage
from vptkit.runtime.bulk.prediction_record import line_of, prediction_of, record_of
from vptkit.runtime.session.session_protocol import Prediction


def test_features_are_kept_only_if_wanted():
    features = np.array([0.1, -2], np.float32)
    one = Prediction(path=Path("a"), adapter="x", top=(("r", 1.0),), features=features)
    assert prediction_of(record_of(one, features=False)).features is None
    np.testing.assert_array_equal(prediction_of(record_of(one, features=True)).features, features)


@pytest.mark.parametrize("name", ["s3://b//x y.jpg", "b.jpg", "\udcff\n"])
def test_an_image_that_is_no_path_is_called_the_same_afterwards(name):
    one = Prediction(path=PackedImage(Path("a/0.tar"), name, 0, 9), adapter="x", error="broken")
    kept = prediction_of(json.loads(line_of(record_of(one, features=False))))
    assert kept.to_json() == one.to_json()
    assert kept.source == one.source == f"a/0.tar: {name}"
    assert kept.path.name == name
    with pytest.raises(DataError, match="kept its name alone"):
        kept.path.read_bytes()
    again = prediction_of(record_of(kept, features=False))
    assert again == kept
    assert isinstance(kept.path, RecalledImage)
