"""Raw pixels less 128: exact, and where it applies."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.support.exported_graphs import error, graph_of, run
from vptkit.export.analysis.dataflow import Dataflow
from vptkit.export.graph.graph_options import GraphOptions
from vptkit.export.graph.unfolded_graph import unfolded_graph
from vptkit.export.precision.pixel_centring import centre_pixels


def test_centred_pixels_change_nothing(case, model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    assert centre_pixels(copy)
    assert error(run(copy, case), run(model, case)) < 2e-6
    flow = Dataflow.of(copy)
    (product,) = [n for n in copy.graph.node if n.name == "patch/MatMul"]
    before = np.abs(numpy_helper.to_array(Dataflow.of(model).constants[product.input[1]])).max()
    assert np.abs(flow.array(product.input[1])).max() == pytest.approx(128 * before)


def test_normalised_pixels_are_left_alone(case):
    assert not centre_pixels(graph_of(case, input="float32"))
    assert not centre_pixels(unfolded_graph(case.spec, case.weights, case.adapter, GraphOptions()))
