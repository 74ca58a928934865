"""What fp16 cannot hold: the map, and the islands or the refusal that follow."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from tests.support.exported_graphs import graph_of
from vptkit.errors import GateError
from vptkit.export.numerics.calibration import observe
from vptkit.export.numerics.fp16_overflow import overflow_islands, overflow_map
from vptkit.export.precision.lowering import Lowering, lower


def test_the_overflow_map_is_the_largest_magnitude(centred, evidence):
    found = overflow_map(centred, evidence.run, evidence.gate)
    names = ["blocks.0/add2", "blocks.0.attn/scores", "blocks.0.mlp.fc1"]
    seen = observe(centred, names, evidence.run, evidence.gate)
    row = found.blocks[0]
    assert row["softmax_input"] == row["scores"] == seen["blocks.0.attn/scores"].largest
    # ONNX Runtime fuses by what is asked for: the last bit may differ between two such graphs
    assert row["residual"] >= seen["blocks.0/add2"].largest * (1 - 1e-6)
    assert row["mlp_hidden"] == seen["blocks.0.mlp.fc1"].largest
    assert row["keys_values"] > 0
    assert found.to_json()["islands"] == []


def test_what_fp16_cannot_hold_becomes_an_island_or_a_refusal(case, evidence):
    model = graph_of(case, last_block="query")
    for tensor in model.graph.initializer:
        if tensor.name == "blocks.1.mlp.fc1.bias":
            value = numpy_helper.to_array(tensor) + np.float32(30000)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        if tensor.name == "blocks.1.mlp.fc2.weight":
            value = numpy_helper.to_array(tensor) * np.float32(1e-5)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    found = overflow_map(model, evidence.run, evidence.calibration)
    assert overflow_islands(found) == ("blocks.1.mlp",)
    wanted = Lowering(precision="fp16", min_agreement=0.5)
    lowered = lower("a", model, wanted, evidence)
    assert lowered.plan["islands"] == ["blocks.1.mlp"]
    with pytest.raises(GateError, match=r"blocks\.1\.mlp\S* reaches .*--no-islands"):
        lower("a", model, Lowering(precision="fp16", auto_islands=False), evidence)
