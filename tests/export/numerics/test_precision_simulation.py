"""A simulated type rounds as the type does, and overflows where it does."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from tests.support.exported_graphs import error, run
from vptkit.export.analysis.dataflow import groups_of
from vptkit.export.numerics.precision_simulation import simulated
from vptkit.export.precision.half_precision import typed


def test_the_simulation_differs_from_fp32_by_the_type_s_rounding(case, model):
    """Its broken twin, a simulation without rounding, would equal fp32."""
    exact = run(model, case)
    fp16 = error(run(simulated(typed(model, "fp16")[0]), case), exact)
    bf16 = error(run(simulated(typed(model, "bf16")[0]), case), exact)
    assert 3 < bf16 / fp16 < 30  # three bits less


def test_a_value_beyond_fp16_shows_in_the_simulation(case, model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    # of both signs: the variance of equal large values is a NaN to an older ONNX Runtime
    beyond = np.tile(np.float32([60000, -60000]), 1024)
    for tensor in copy.graph.initializer:
        if tensor.name in ("blocks.0.mlp.fc2.bias", "blocks.0.attn.proj.bias"):
            value = numpy_helper.to_array(tensor)
            value = value + beyond[: value.shape[-1]]
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    assert np.isfinite(run(copy, case)).all()
    assert not np.isfinite(run(simulated(typed(copy, "fp16")[0]), case)).all()
    islands = tuple(sorted(set(groups_of(copy).values())))
    assert np.isfinite(run(simulated(typed(copy, "fp16", islands)[0]), case)).all()
