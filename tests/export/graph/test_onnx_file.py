"""Graphs in files, and beyond protobuf's limit."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

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


def test_a_file_is_what_protobuf_writes(tmp_path):
    """Constants of each form, empty ones too, with fields before and behind them in every message."""
    named = [
        numpy_helper.from_array(np.arange(40_000, dtype=np.float32), "large"),
        numpy_helper.from_array(np.zeros((0, 3), np.float16), "empty"),
        helper.make_tensor("listed", onnx.TensorProto.FLOAT, [2], [1.0, 2.0]),
        numpy_helper.from_array(np.array(7), ""),
    ]
    named[0].doc_string = "behind the numbers"
    body = helper.make_node("Constant", [], ["c"], value=named[2])
    output = helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, [2])
    for tensors in (named, []):
        graph = helper.make_graph([body], "g", [], [output], tensors, doc_string="of the graph")
        model = helper.make_model(graph, producer_name="p", doc_string="of the model")
        model.metadata_props.add(key="k", value="v")
        onnx_file.write_model(model, tmp_path / "model.onnx")
        written = (tmp_path / "model.onnx").read_bytes()
        assert written == model.SerializeToString(deterministic=True)
