from __future__ import annotations

from pathlib import Path

import pytest

from vptkit.cli.run_command.run_outcome import require_all, require_outputs, verdict
from vptkit.errors import BundleError, DataError
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.bulk.prediction_writers import Delivered
from vptkit.runtime.session.session_protocol import Prediction


def test_verdict():
    line = verdict(Delivered(1750, 2, None), 5.25, "cpu", [Path("p.csv"), Path("f.npy")])
    assert line == "1,750 images in 5.2 s (3 ms each, cpu), 2 broken → p.csv, f.npy"
    assert (
        verdict(Delivered(1, 0, None), 0.0042, "cuda", [])
        == "1 image in 0.0042 s (4.2 ms each, cuda), 0 broken"
    )
    assert verdict(Delivered(0, 0, None), 12.6, "", []).startswith("0 images in 13 s")


def test_faults_in_the_end():
    require_all([], Delivered(3, 0, None), shown_above=True)
    broken = Delivered(3, 1, Prediction(path=Path("x.png"), adapter="a", error="x.png: no image"))
    with pytest.raises(DataError, match=r"^1 of 3 images failed; the first: x\.png$"):
        require_all([], broken, shown_above=True)
    both = r"first: x\.png: no image; 1 of the sources is missing: y: no such file"
    with pytest.raises(DataError, match=both):
        require_all(["1 of the sources is missing: y: no such file"], broken, shown_above=False)


def test_what_a_bundle_does_not_give(make_bundle):
    labels = open_bundle(make_bundle())
    features = open_bundle(make_bundle(gives=("features",)))
    require_outputs(labels, Path("x.csv"), None, as_json=True)
    require_outputs(features, None, Path("x.npy"), as_json=False)
    for bundle, save, wanted in (
        (labels, None, Path("x.npy")),
        (features, None, None),
        (features, Path("x.csv"), Path("x.npy")),
    ):
        with pytest.raises(BundleError, match=r"features.*|logits.*"):
            require_outputs(bundle, save, wanted, as_json=False)
