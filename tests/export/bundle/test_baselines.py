"""Baselines run, count their operations, and compute in the bundle's type."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from tests.support.adapter_files import answers, files_of
from tests.support.strategies import Setup, build
from vptkit.errors import BundleError
from vptkit.export.analysis.macs import unfolded_macs
from vptkit.export.bundle.baselines import _require_size, export_baselines, random_weights
from vptkit.export.bundle.export_bundle import export
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.export.precision.lowering import Lowering
from vptkit.formats.backbone_weights import tensor_shapes
from vptkit.formats.bundle import open_bundle


@pytest.mark.parametrize(
    ("setup", "feed", "batch"),
    [
        (Setup(), "uint8", None),
        (Setup(pool="avg_prompts", norm="after_pool"), "float32", 2),
        (Setup(insert="shallow"), "uint8", 2),
        (Setup(insert="none"), "float32", None),
        (Setup(pool="token+avg"), "uint8", None),
    ],
)
def test_baselines_run_and_count(tmp_path, setup, feed, batch):
    files = files_of(tmp_path, setup)
    options = ExportOptions(input=feed, batch=batch)
    export(files.adapter, files.out, weights=files.weights, options=options)
    folder = tmp_path / "baselines"
    folder.mkdir()
    paths = export_baselines(files.out, folder)
    spec, m = files.case.spec, files.case.adapter.prompt_length
    expected = {"backbone (no adapter)": 0} | ({"unfolded": m} if m else {})
    assert list(paths) == list(expected)
    for name, path in paths.items():
        bundle = open_bundle(path)
        macs = unfolded_macs(spec, expected[name])
        assert bundle.manifest["macs"] == {
            "backbone": unfolded_macs(spec, 0),
            "unfolded": macs,
            "graph": macs,
        }
        assert (bundle.name, bundle.manifest["fold"]) == (name, "none")
        assert (bundle.input, bundle.batch) == (open_bundle(files.out).input, batch)
        logits = answers(path, files.case)
        assert logits.shape == (2, 5)
        assert np.isfinite(logits).all()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_baselines_compute_in_the_type_of_the_bundle(tmp_path, files, precision):
    options = ExportOptions(lowering=Lowering(precision=precision))
    export(files.adapter, files.out, weights=files.weights, options=options)
    for path in export_baselines(files.out, tmp_path).values():
        assert open_bundle(path).precision == precision
        kinds = {t.data_type for t in onnx.load(str(path / "model.onnx")).graph.initializer}
        wanted = {"fp32": "FLOAT", "fp16": "FLOAT16", "bf16": "BFLOAT16"}[precision]
        assert onnx.TensorProto.DataType.Value(wanted) in kinds


def test_random_weights_are_complete_and_repeatable():
    spec = build(Setup()).spec
    first, second = random_weights(spec), random_weights(spec)
    assert {k: v.shape for k, v in first.items()} == tensor_shapes(spec)
    assert all(v.dtype == np.float32 and np.array_equal(v, second[k]) for k, v in first.items())


def test_a_description_larger_than_its_graph_is_refused(make_bundle, edit_manifest):
    """Random weights are made of the description alone: of this one, 100 GB."""
    path = make_bundle()
    backbone = json.loads((path / "manifest.json").read_text())["backbone"]
    backbone["spec"] |= {"width": 8192, "depth": 128, "mlp_width": 32768}
    edit_manifest(path, backbone=backbone)
    with pytest.raises(BundleError, match="more than its graph of"):
        _require_size(open_bundle(path, verify=False))
