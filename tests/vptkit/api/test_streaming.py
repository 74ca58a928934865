"""`vptkit.run_streams`: what it refuses before anything is opened."""

from __future__ import annotations

import pytest

import vptkit
from vptkit.api.streaming import run_streams
from vptkit.errors import VptkitError
from vptkit.runtime import open_session


@pytest.mark.parametrize(
    ("sources", "settings", "match"),
    [
        ([], {}, "at least one"),
        ("photos", {}, "no video and no camera"),
        ("a.mp4", {"colour": 1}, "colour: no such setting"),
        ("a.mp4", {"every": 0}, "expected 1 or more"),
        ("a.mp4", {"adapter": "other"}, "no adapter 'other'"),
    ],
)
def test_refused(make_bundle, sources, settings, match):
    assert vptkit.run_streams is run_streams
    with (
        open_session(make_bundle(), threads=1) as session,
        pytest.raises(VptkitError, match=match),
    ):
        run_streams(session, sources, **settings)
