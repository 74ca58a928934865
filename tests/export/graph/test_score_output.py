"""The output `scores`: the logistic function of the logits, in float32 at every precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from tests.support.adapter_files import files_of
from tests.support.strategies import Setup
from tests.support.tolerances import PARITY_FP32, largest_difference
from vptkit.export.bundle.baselines import export_baselines
from vptkit.export.bundle.export_bundle import export
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.export.bundle.onnx_output import write_onnx
from vptkit.export.graph.score_output import add_scores
from vptkit.export.precision.lowering import Lowering
from vptkit.formats.adapter import read_adapter, write_adapter
from vptkit.formats.bundle import open_bundle
from vptkit.runtime import open_session
from vptkit.runtime.evaluation.parity import check_golden
from vptkit.scores.multilabel import sigmoid

THRESHOLDS = np.float32([0.5, 0.25, 0.9, 0.01, 0.7])


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """An adapter for several labels an image, on disk."""
    files = files_of(tmp_path_factory.mktemp("several"), Setup())
    adapter = read_adapter(files.adapter)
    tensors = {**adapter.tensors, "head.thresholds": THRESHOLDS}
    write_adapter(files.adapter, replace(adapter, task="multilabel", tensors=tensors))
    return files


def test_scores_stand_behind_the_logits_and_are_float32():
    """Of logits beyond what float16 tells apart from 1, too."""
    logits = np.float32([[-20, 0, 8.9, 12]])
    values = [helper.make_tensor_value_info(n, 1, ["B", 4]) for n in ("x", "logits", "features")]
    nodes = [helper.make_node("Identity", ["x"], [name]) for name in ("logits", "features")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    add_scores(model)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert [value.name for value in session.get_outputs()] == ["logits", "scores", "features"]
    found = session.run(["scores"], {"x": logits})[0]
    np.testing.assert_allclose(found, sigmoid(logits), atol=1e-7, rtol=1e-5)
    assert found.dtype == np.float32
    assert 0.9998 < found[0, 2] < found[0, 3] < 1


@pytest.mark.slow
@pytest.mark.parametrize("fold", ["all", "none"])
def test_scores_are_the_logistic_function_of_the_references_logits(several, tmp_path, fold):
    out = tmp_path / "a.vptk"
    manifest = export(
        several.adapter, out, weights=several.weights, options=ExportOptions(fold=fold)
    )
    session, bundle = open_session(out, threads=1), open_bundle(out)
    answers = session.answers(several.case.images)
    assert list(answers) == ["logits", "scores"]
    assert np.abs(answers["scores"] - sigmoid(several.case.reference)).max() <= 1e-6
    assert largest_difference(answers["logits"], several.case.reference) <= PARITY_FP32
    assert manifest["task"] == bundle.task == "multilabel"
    assert np.array_equal(bundle.thresholds_of(None), THRESHOLDS)
    parity = check_golden(session)
    assert (parity.ok, parity.top1_agreement) == (True, 1.0)
    assert parity.scores_max_diff <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("output", ["logits", "both", "features"])
def test_outputs_and_types_of_a_lower_precision(several, tmp_path, output):
    options = ExportOptions(output=output, lowering=Lowering(precision="fp16"))
    export(several.adapter, tmp_path / "a.vptk", weights=several.weights, options=options)
    names = {"logits": ["logits", "scores"], "features": ["features"]}
    names["both"] = ["logits", "scores", "features"]
    graph = onnx.load(tmp_path / "a.vptk" / "model.onnx").graph
    assert [value.name for value in graph.output] == names[output]
    assert {value.type.tensor_type.elem_type for value in graph.output} == {onnx.TensorProto.FLOAT}
    found = open_session(tmp_path / "a.vptk", threads=1).answers(several.case.images)
    assert list(found) == names[output]
    if output != "features":  # of the logits as they come out, not of rounded ones within
        assert np.abs(found["scores"] - sigmoid(found["logits"])).max() <= 1e-6


@pytest.mark.slow
def test_baselines_and_the_bare_graph_have_scores_too(several, tmp_path):
    export(several.adapter, tmp_path / "a.vptk", weights=several.weights)
    for path in export_baselines(tmp_path / "a.vptk", tmp_path).values():
        assert open_session(path, threads=1).scores(several.case.images).shape == (2, 5)
    write_onnx(tmp_path / "a.vptk", tmp_path / "a.onnx")
    notes = {entry.key: entry.value for entry in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert notes["vptkit.task"] == "multilabel"
    assert notes["vptkit.thresholds"].startswith("[0.5,0.25,0.8999")
