"""Memory from life times: small graphs that can be counted by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from tests.support.adapter_files import files_of
from tests.support.bank_cases import family, write_family
from tests.support.strategies import Setup
from vptkit.export.analysis.memory_estimate import memory_of, peak_bytes
from vptkit.export.bank.export_bank import export_bank
from vptkit.export.bundle.baselines import export_baselines
from vptkit.export.bundle.export_bundle import export
from vptkit.formats.bundle import open_bundle


def model(nodes, *, batch="batch", kind=T.FLOAT, width=4, tensors=None, inputs=()):
    """x [batch, 8, width] → y."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weights = {"w": np.zeros((4, 4)), "wide": np.zeros((4, 16)), "back": np.zeros((16, 4))}
    weights |= {"scale": np.zeros(4)}
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, [batch, 8, width]), *inputs],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(v.astype(dtype), n) for n, v in weights.items() if n in used]
        + [numpy_helper.from_array(v, n) for n, v in (tensors or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def op(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs.split(), [output], name=output, **attributes)


ROW = 8 * 4 * 4  # one value [8, 4] of float32

MLP = [
    op("MatMul", "x wide", "h"),
    op("Erf", "h", "e"),
    op("Mul", "h e", "a"),
    op("MatMul", "a back", "m"),
    op("Add", "m x", "y"),
]


def test_an_activation_is_part_of_the_product():
    """Only `a` is written between the kernels: h and e never are, y is the output."""
    assert peak_bytes(model(MLP), 1) == 4 * ROW
    assert peak_bytes(model(MLP), 3) == 3 * 4 * ROW


def test_a_product_that_two_kernels_read_is_written():
    """`b` makes its `e` a value of its own, so that h lives too."""
    nodes = [
        op("MatMul", "x wide", "h"),
        op("Erf", "h", "e"),
        op("MatMul", "e back", "m"),
        op("MatMul", "h back", "n"),
        op("Add", "m n", "y"),
    ]
    # h and e at once, then h and m (n goes into y)
    assert peak_bytes(model(nodes), 1) == 2 * 4 * ROW


def test_the_residual_stream_lives_on():
    nodes = [
        op("LayerNormalization", "x scale", "n", axis=-1),
        op("MatMul", "n w", "p"),
        op("Add", "p x", "z"),
        op("LayerNormalization", "z scale", "n2", axis=-1),
        op("MatMul", "n2 w", "q"),
        op("Add", "q z", "y"),
    ]
    assert peak_bytes(model(nodes), 1) == 2 * ROW  # z and n2


def attention(kind):
    nodes = [
        op("MatMul", "x w", "q"),
        op("MatMul", "x w", "k"),
        op("MatMul", "x w", "v"),
        op("Transpose", "k", "kt", perm=[0, 2, 1]),
        op("MatMul", "q kt", "s"),
        op("Softmax", "s", "p", axis=-1),
        op("MatMul", "p v", "r"),
        op("MatMul", "r w", "y"),
    ]
    return model(nodes, kind=kind)


def test_fused_attention_keeps_no_scores():
    size = ROW // 2  # float16
    assert peak_bytes(attention(T.FLOAT16), 1) == 4 * size  # q, kt, v and r
    # in fp32: q, kt, v with scores [8, 8], which are twice a value
    assert peak_bytes(attention(T.FLOAT), 1) == (3 + 2) * ROW


def test_what_the_manifest_gets():
    memory = memory_of(model(MLP))
    assert memory == {
        "weights_bytes": 2 * 64 * 4,
        "activation_bytes": {"fixed": 0, "per_image": 4 * ROW},
    }
    assert memory_of(model(MLP, batch=8))["activation_bytes"] == {"fixed": 0, "per_image": 4 * ROW}
    assert memory_of(model(MLP, kind=T.FLOAT16))["weights_bytes"] == 2 * 64 * 2


def test_what_is_quantized_takes_a_byte():
    """Both sides of a product are stored as int8, the weight ahead of time."""
    nodes = [
        op("LayerNormalization", "x scale", "n", axis=-1),
        op("QuantizeLinear", "n step", "nq"),
        op("DequantizeLinear", "nq step", "nd"),
        op("QuantizeLinear", "wide step", "wq"),
        op("DequantizeLinear", "wq step", "wd"),
        op("MatMul", "nd wd", "h"),
        op("LayerNormalization", "h big", "m", axis=-1),
        op("MatMul", "m back", "y"),
    ]
    tensors = {"step": np.float32(0.1), "big": np.zeros(16, np.float32)}
    graph = model(nodes, tensors=tensors)
    assert peak_bytes(graph, 1) == 2 * 4 * ROW  # h and m; with nd it is less
    assert memory_of(graph)["weights_bytes"] == 4 * 4 + 64 + 64 * 4 + 4 + 16 * 4
    nodes[6:] = [op("MatMul", "h back", "y")]
    assert peak_bytes(model(nodes, tensors=tensors), 1) == ROW // 4 + 4 * ROW  # nd and h


def test_what_does_not_grow_with_the_batch_is_told_apart():
    nodes = [
        op("Softmax", "table", "t", axis=-1),
        op("MatMul", "t w", "u"),
        op("ReduceSum", "u axis", "r", keepdims=1),
        *MLP[:4],
        op("Add", "m r", "y"),
    ]
    table = helper.make_tensor_value_info("table", T.FLOAT, ["adapters", 100, 4])
    axis = {"axis": np.array([1], np.int64)}
    found = memory_of(model(nodes, tensors=axis, inputs=(table,)))["activation_bytes"]
    assert found["per_image"] == pytest.approx(4 * ROW, rel=0.2)
    assert found["fixed"] > 0


def test_sizes_that_the_graph_computes_are_followed():
    nodes = [
        op("Shape", "x", "shape"),
        op("Slice", "shape zero one zero", "b"),
        op("Concat", "b rest", "target", axis=0),
        op("Expand", "prefix target", "p"),
        op("Concat", "p x", "z", axis=1),
        op("MatMul", "z w", "y"),
    ]
    tensors = {
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "rest": np.array([8, 4], np.int64),
        "prefix": np.zeros((1, 8, 4), np.float32),
    }
    assert peak_bytes(model(nodes, tensors=tensors), 5) == 5 * 2 * ROW


def test_the_graph_is_left_as_it_was():
    graph = model(MLP)
    before = graph.SerializeToString(deterministic=True)
    memory_of(graph)
    assert graph.SerializeToString(deterministic=True) == before


def test_manifests_have_it(tmp_path):
    files = files_of(tmp_path, Setup(depth=2), golden=False)
    manifest = export(files.adapter, tmp_path / "a.vptk", weights=files.weights)
    graph = onnx.load(tmp_path / "a.vptk" / "model.onnx")
    assert manifest["memory"] == memory_of(graph)
    for path in export_baselines(tmp_path / "a.vptk", tmp_path).values():
        found = open_bundle(path).manifest["memory"]
        assert found == memory_of(onnx.load(path / "model.onnx"))
        assert found["activation_bytes"] != manifest["memory"]["activation_bytes"]


def test_a_bank_counts_its_values_but_not_its_tables(tmp_path):
    members = family(Setup(tuned_norms=False, depth=2), ("bilinear", "linear"))
    paths = write_family(members, tmp_path, golden=False)
    weights = paths.pop("weights")
    manifest = export_bank(list(paths.values()), tmp_path / "b.vptk", weights=weights)
    size = (tmp_path / "b.vptk" / "model.onnx").stat().st_size
    assert 0.5 * size < manifest["memory"]["weights_bytes"] < size
    assert manifest["memory"]["activation_bytes"]["per_image"] > 0
