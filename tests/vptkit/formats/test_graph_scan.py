"""A graph that wants other files than its own is found out without the onnx package."""

from __future__ import annotations

import io
import random

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.adapter_files import files_of
from tests.support.small_vit import SMALL_VIT
from vptkit.errors import BundleError
from vptkit.export.bundle.export_bundle import export
from vptkit.formats.graph_scan import require_closed_graph


def scan(content: bytes, tmp_path, data: str | None = None) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with (tmp_path / "x.onnx").open("rb") as stream:
        require_closed_graph(stream, "x.onnx", data)


def outside(location: str, name: str = "w") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def model(*nodes, tensors=(), functions=()) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph(list(nodes), "g", [value], [value], list(tensors))
    return helper.make_model(graph, functions=list(functions))


def constant(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=tensor)


def branch(*nodes, tensors=()) -> onnx.NodeProto:
    graph = helper.make_graph(list(nodes), "b", [], [], list(tensors))
    return helper.make_node("If", ["x"], ["y"], then_branch=graph, else_branch=graph)


def sparse(tensor: TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=tensor, dims=[1])


ENGINE = helper.make_node("EPContext", [], ["y"], domain="com.microsoft", ep_cache_context="/x")
LARGE = numpy_helper.from_array(np.zeros(5000, np.float32), "large")


def in_function(node) -> onnx.ModelProto:
    function = helper.make_function("d", "f", [], [], [node], [helper.make_opsetid("", 17)])
    return model(functions=[function])


def in_sparse() -> onnx.ModelProto:
    found = model()
    found.graph.sparse_initializer.append(sparse(outside("/etc/passwd")))
    return found


def in_training() -> onnx.ModelProto:
    found = model()
    found.training_info.add().algorithm.initializer.append(outside("/etc/passwd"))
    return found


def without_the_mark() -> onnx.ModelProto:
    tensor = outside("/etc/passwd")
    tensor.ClearField("data_location")
    return model(tensors=[tensor])


OUTSIDE = {
    "a constant of the graph": lambda: model(tensors=[LARGE, outside("/etc/passwd")]),
    "a relative path": lambda: model(tensors=[outside("../../x")]),
    "another file of the folder": lambda: model(tensors=[outside("adapter.safetensors")]),
    "memory of the process": lambda: model(tensors=[outside("*/_ORT_MEM_ADDR_/*")]),
    "a Constant node": lambda: model(constant(outside("/x"))),
    "a branch": lambda: model(branch(tensors=[outside("/x")])),
    "a branch of a branch": lambda: model(branch(branch(constant(outside("/x"))))),
    "a function": lambda: in_function(constant(outside("/x"))),
    "a sparse constant": in_sparse,
    "training": in_training,
    "no mark": without_the_mark,
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_constants_elsewhere_are_refused(case, tmp_path):
    content = OUTSIDE[case]().SerializeToString()
    with pytest.raises(BundleError, match=r"x\.onnx: keeps constants in"):
        scan(content, tmp_path)
    with pytest.raises(BundleError, match=r"x\.onnx: keeps constants in"):
        scan(content, tmp_path, "model.onnx.data")


def test_constants_in_the_listed_file_are_not(tmp_path):
    content = model(tensors=[outside("model.onnx.data"), LARGE]).SerializeToString()
    scan(content, tmp_path, "model.onnx.data")
    with pytest.raises(BundleError, match="keeps constants"):
        scan(content, tmp_path)


@pytest.mark.parametrize("made", [model, in_function, lambda n: model(branch(branch(n)))])
def test_an_engine_is_refused(made, tmp_path):
    with pytest.raises(BundleError, match="an EPContext node"):
        scan(made(ENGINE).SerializeToString(), tmp_path)


def test_the_words_alone_do_no_harm(tmp_path):
    node = helper.make_node("Identity", ["location"], ["EPContext"], name="EPContext")
    found = model(node, tensors=[numpy_helper.from_array(np.zeros(1), "location")])
    found.producer_name = "EPContext"
    scan(found.SerializeToString(), tmp_path)


def test_a_second_graph_and_an_odd_order_are_seen(tmp_path):
    """Readers merge what comes twice; and fields may come in any order."""
    one, two = model(tensors=[LARGE]), model(ENGINE)
    with pytest.raises(BundleError, match="EPContext"):
        scan(one.SerializeToString() + two.SerializeToString(), tmp_path)
    tensor = outside("/x").SerializeToString()
    mark = b"\x70\x01"  # data_location = 1
    assert mark in tensor
    node = constant(TensorProto.FromString(mark + tensor.replace(mark, b"")))
    with pytest.raises(BundleError, match="keeps constants"):
        scan(model(node).SerializeToString(), tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"nonsense",
        b"\x3a\x05\x0a",  # a graph of five bytes, of which one is there
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a length of 2^64 - 1
        b"\xba\x80\x80\x80\x80\x80\x80\x00\x00",  # a key of too many bytes
        b"\x3b\x3c",  # a group
        b"\x02\x00",  # field 0
        b"\x08",
    ],
)
def test_what_is_no_graph_is_refused(content, tmp_path):
    with pytest.raises(BundleError, match="not a readable ONNX graph"):
        scan(content, tmp_path)


def field(number: int, content: bytes) -> bytes:
    size, out = len(content), bytes([number << 3 | 2])
    while size > 127:
        out, size = out + bytes([size & 0x7F | 0x80]), size >> 7
    return out + bytes([size]) + content


def test_too_deep_is_refused(tmp_path):
    node = ENGINE.SerializeToString()
    for _ in range(400):  # a node, in a graph, in an attribute, of a node
        node = field(5, field(6, field(1, node)))
    with pytest.raises(BundleError, match="not a readable ONNX graph"):
        scan(field(7, field(1, node)), tmp_path)


def test_broken_bytes_are_an_error_or_a_graph(tmp_path):
    whole = model(constant(LARGE), ENGINE, tensors=[LARGE]).SerializeToString()
    rng = random.Random(0)
    for _ in range(300):
        content = bytearray(whole[: rng.randrange(len(whole))])
        for _ in range(rng.randrange(4)):
            content[rng.randrange(len(content) or 1)] = rng.randrange(256) if content else 0
        try:
            scan(bytes(content), tmp_path)
        except BundleError:
            continue
        try:
            found = onnx.load(io.BytesIO(bytes(content)))
        except Exception:
            continue
        assert "EPContext" not in [node.op_type for node in found.graph.node]


def test_an_exported_graph_is_closed(tmp_path):
    files = files_of(tmp_path, SMALL_VIT, golden=False)
    export(files.adapter, tmp_path / "a.vptk", weights=files.weights)
    scan((tmp_path / "a.vptk" / "model.onnx").read_bytes(), tmp_path)
