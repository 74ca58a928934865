"""From fp32 to a precision, judged on images."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.support.exported_graphs import graph_of
from tests.support.strategies import Setup, build
from vptkit.errors import GateError, VptkitError
from vptkit.export.numerics.evidence import Evidence
from vptkit.export.precision import lowering as lower_module
from vptkit.export.precision.lowering import Lowering, lower


def test_int8_needs_calibration_images(centred, evidence):
    wanted = Lowering(precision="int8")
    with pytest.raises(VptkitError, match="--calibration"):
        lower("a", centred, wanted, Evidence(run=evidence.run))


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8"])
def test_lower_judges_itself(case, evidence, precision):
    model = graph_of(case)
    wanted = Lowering(precision=precision, min_agreement=0.5)
    lowered = lower("a", model, wanted, evidence)
    assert lowered.gate["count"] == 8
    assert lowered.gate["simulated"] == (precision != "int8")
    assert lowered.gate["sqnr_db"] > 15
    assert lowered.plan["target"] == ("cpu" if precision == "int8" else "tensorrt")


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["before_pool", "after_pool"])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8"])
def test_class_token_beside_the_mean_in_every_precision(case, evidence, precision, norm):
    both = build(Setup(pool="token+avg", norm=norm))
    assert both.adapter.preprocess == case.adapter.preprocess  # the evidence is of that
    wanted = Lowering(precision=precision, min_agreement=0.5)
    lowered = lower("a", graph_of(both, last_block="query"), wanted, evidence)
    assert lowered.gate["sqnr_db"] > 15


def test_a_graph_that_changes_labels_fails_its_gate(case, evidence, monkeypatch):
    """The broken twin: a lowered graph whose first class always wins."""
    model, real = graph_of(case), lower_module.precise

    def biased(*arguments):
        low = real(*arguments)
        for tensor in low.graph.initializer:
            if tensor.name == "logits.bias":
                value = numpy_helper.to_array(tensor) + np.eye(1, tensor.dims[0])[0] * 1000
                kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
                tensor.CopyFrom(numpy_helper.from_array(value.astype(kind), tensor.name))
        return low

    lower("a", model, Lowering(precision="fp16", min_agreement=0.8), evidence)
    monkeypatch.setattr(lower_module, "precise", biased)
    with pytest.raises(GateError, match="agrees with fp32"):
        lower("a", model, Lowering(precision="fp16", min_agreement=0.8), evidence)


def test_of_several_labels_an_image_labels_are_judged(case, evidence):
    """Where every label is given by both, nothing that int8 does to the logits is a disagreement."""
    model, wanted = graph_of(case), Lowering(precision="int8", min_agreement=0.1)
    always = np.full(len(case.adapter.labels), 1e-30, np.float32)
    gate = lower("a", model, wanted, evidence, thresholds=always).gate
    assert (gate["multilabel"], gate["agreement"], gate["top1"]) == (True, 1.0, None)
    assert gate["sqnr_db"] < 100
