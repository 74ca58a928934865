"""Graphs beyond protobuf's limit."""

from __future__ import annotations

import json

import pytest

from tests.support.adapter_files import answers, content
from tests.support.tolerances import PARITY_FP32, largest_difference
from vptkit.export.bundle.export_bundle import export
from vptkit.export.graph import onnx_file
from vptkit.formats.bundle import open_bundle


def test_external_data_beyond_the_limit_of_protobuf(files, monkeypatch):
    monkeypatch.setattr(onnx_file, "_PROTOBUF_LIMIT", 1000)
    export(files.adapter, files.out, weights=files.weights)
    listed = json.loads((files.out / "manifest.json").read_text())["files"]
    assert "model.onnx.data" in listed
    assert (files.out / "model.onnx").stat().st_size < (
        files.out / "model.onnx.data"
    ).stat().st_size
    assert largest_difference(answers(files.out, files.case), files.case.reference) <= PARITY_FP32
    first = content(files.out)
    export(files.adapter, files.out, weights=files.weights, force=True)
    assert content(files.out) == first
    damaged = bytearray(first["model.onnx.data"])
    damaged[-1] ^= 1
    (files.out / "model.onnx.data").write_bytes(damaged)
    with pytest.raises(Exception, match=r"model\.onnx\.data differs from its digest"):
        open_bundle(files.out)
