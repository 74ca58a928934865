"""A prediction as one line of text, and back: equal in all that is written of it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.images.image_file import RecalledImage
from vptkit.runtime.session.session_protocol import Prediction

if TYPE_CHECKING:
    from vptkit.images.image_file import ImageFile

__all__ = ["line_of", "prediction_of", "record_of"]

_PLAIN = ("index", "adapter", "error", "typicality", "rejected")


def record_of(prediction: Prediction, *, features: bool) -> dict[str, Any]:
    """What is kept of a prediction: no logits and scores, and features only if wanted.

    Numbers come back as they are, for JSON has the shortest text that gives the same float64; and
    so do names that are not UTF-8. Of an image that is no Path its name is kept beside its text.
    """
    path = prediction.path
    record: dict[str, Any] = {"path": None if path is None else str(path)}
    if path is not None and not isinstance(path, Path):
        record["name"] = path.name
    record |= {name: getattr(prediction, name) for name in _PLAIN}
    record |= {"top": prediction.top, "labels": prediction.labels}
    if features and prediction.features is not None:
        numbers = np.ascontiguousarray(prediction.features, dtype="<f4")
        record["features"] = base64.b64encode(numbers.tobytes()).decode("ascii")
    return record


def prediction_of(record: dict[str, Any]) -> Prediction:
    """What `record_of` made the record of."""
    given, features = record["labels"], record.get("features")
    return Prediction(
        path=_image_of(record),
        top=tuple((label, score) for label, score in record["top"]),
        labels=None if given is None else tuple((label, score) for label, score in given),
        features=None if features is None else np.frombuffer(base64.b64decode(features), "<f4"),
        **{name: record[name] for name in _PLAIN},
    )


def _image_of(record: dict[str, Any]) -> ImageFile | None:
    if "name" in record:
        return RecalledImage(record["path"], record["name"])
    return None if record["path"] is None else Path(record["path"])


def line_of(record: dict[str, Any]) -> bytes:
    """A record as ASCII without line ends."""
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode("ascii")
