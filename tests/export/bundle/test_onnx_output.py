"""A bundle's graph as one file, with what it needs in its metadata."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from vptkit.errors import OutputError, TargetError
from vptkit.export.bundle.onnx_output import write_onnx
from vptkit.formats.bundle import open_bundle

ort = pytest.importorskip("onnxruntime")


def test_the_file_answers_as_the_bundle(make_bundle, tmp_path):
    path = make_bundle()
    write_onnx(path, tmp_path / "x.onnx")
    opened = open_bundle(path)
    images, logits = opened.golden()
    session = ort.InferenceSession(tmp_path / "x.onnx")
    assert np.allclose(session.run(["logits"], {"images": images})[0], logits, atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["vptkit.labels"]) == ["red", "green", "blue"]
    assert json.loads(metadata["vptkit.preprocess"]) == opened.preprocess.to_json()
    assert metadata["vptkit.precision"] == "fp32"
    onnx.checker.check_model(str(tmp_path / "x.onnx"))


def test_what_is_there_stays(make_bundle, tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"x\.onnx: exists already"):
        write_onnx(make_bundle(), tmp_path / "x.onnx")
    assert (tmp_path / "x.onnx").read_bytes() == b"mine"
    write_onnx(make_bundle(), tmp_path / "x.onnx", force=True)
    assert len((tmp_path / "x.onnx").read_bytes()) > 100


def test_more_than_one_file_can_hold(make_bundle, tmp_path, monkeypatch):
    from vptkit.export.bundle import onnx_output

    monkeypatch.setattr(onnx_output, "MODEL_DATA", "model.onnx")
    with pytest.raises(TargetError, match=r"more than 2 GB.*--format bundle"):
        write_onnx(make_bundle(), tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()
