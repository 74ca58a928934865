from __future__ import annotations

from pathlib import Path

import numpy as np

from vptkit.runtime.bulk.prediction_record import prediction_of, record_of
from vptkit.runtime.session.session_protocol import Prediction


def test_features_are_kept_only_if_wanted():
    features = np.array([0.1, -2], np.float32)
    one = Prediction(path=Path("a"), adapter="x", top=(("r", 1.0),), features=features)
    assert prediction_of(record_of(one, features=False)).features is None
    np.testing.assert_array_equal(prediction_of(record_of(one, features=True)).features, features)
