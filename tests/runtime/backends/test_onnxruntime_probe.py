"""Any graph on the processor: portions of a fixed batch, and graphs that it cannot run."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from vptkit.errors import TargetError
from vptkit.runtime.backends.onnxruntime_probe import OrtProbe


def probe(tiny_model, batch, write=None):
    """The sum of each image's numbers, and the largest number of a run."""
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, 24, 16, 3])],
        [
            helper.make_tensor_value_info("mean", TensorProto.FLOAT, [batch]),
            helper.make_tensor_value_info("largest", TensorProto.FLOAT, []),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save = write or (lambda path: onnx.save(model, path))
    return OrtProbe(save, tiny_model.preprocess, threads=1)


@pytest.mark.parametrize("count", [1, 3, 4, 7, 8])
def test_a_fixed_batch_says_what_a_free_one_says(tiny_model, count):
    images = np.random.default_rng(count).integers(0, 256, (count, 24, 16, 3), dtype=np.uint8)
    free, fixed = (probe(tiny_model, batch)(images) for batch in ("B", 4))
    assert free.keys() == fixed.keys() == {"mean", "largest"}
    assert fixed["mean"].shape == (count,)
    np.testing.assert_allclose(fixed["mean"], free["mean"], rtol=1e-6)
    assert fixed["largest"] == free["largest"] == images.max()  # the largest of all portions


def test_what_cannot_be_loaded_or_run(tiny_model):
    with pytest.raises(TargetError, match=r"ONNX Runtime \d.* cannot load the graph"):
        probe(tiny_model, 4, lambda path: path.write_bytes(b"nonsense"))
    with pytest.raises(TargetError, match="ONNX Runtime failed: "):
        probe(tiny_model, "B")(np.zeros((1, 8, 8, 3), np.uint8))
