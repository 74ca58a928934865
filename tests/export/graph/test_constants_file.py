"""Constants in a file: the same bytes as in memory, in whatever order and type they come."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.support.adapter_files import answers, content
from tests.support.tolerances import PARITY_FP32, largest_difference
from vptkit.export.bundle import export_bundle
from vptkit.export.bundle.export_bundle import export
from vptkit.export.graph import constants_file as module
from vptkit.export.graph import onnx_file
from vptkit.export.graph.constants_file import constants_file
from vptkit.export.graph.onnx_builder import Builder

RNG = np.random.default_rng(0)
VALUES = {
    "rows": RNG.standard_normal((60, 50)),
    "transposed": RNG.standard_normal((50, 60)).T,
    "every other": RNG.standard_normal((200, 31))[::2, ::3],
    "one row": RNG.standard_normal((1, 12, 30, 5)),
    "vector": RNG.standard_normal(700),
    "single": RNG.standard_normal((33, 17)).astype(np.float32),
    "repeated": np.broadcast_to(RNG.standard_normal(300), (20, 300)),
    "small": RNG.standard_normal((2, 2)),
    "scalar": np.asarray(0.5),
    "empty": np.zeros((0, 400)),
    "integers": np.arange(3000),
}


def graph_of(constants=None, dtype=np.float32):
    builder = Builder(dtype, constants)
    for name, value in VALUES.items():
        builder.const(name, value)
    return builder.model("g", [("x", onnx.TensorProto.FLOAT, (1,))])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("piece", [1, 1000, 1 << 20])
def test_a_graph_is_the_same_whose_constants_were_in_a_file(tmp_path, monkeypatch, piece, dtype):
    monkeypatch.setattr(module, "_PIECE", piece)
    onnx_file.write_model(graph_of(dtype=dtype), tmp_path / "memory.onnx")
    with constants_file(tmp_path / "constants") as constants:
        graph = graph_of(constants, dtype)
        held = {tensor.name for tensor in graph.graph.initializer if tensor.raw_data}
        assert held == {"small", "scalar", "integers"}
        onnx_file.write_model(graph, tmp_path / "file.onnx", constants)
        whole = constants.whole(graph)
    assert (tmp_path / "file.onnx").read_bytes() == (tmp_path / "memory.onnx").read_bytes()
    assert whole == onnx.load(tmp_path / "memory.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.onnx", "memory.onnx"]


def test_beyond_the_limit_the_file_is_the_external_data(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "_PROTOBUF_LIMIT", 1000)
    with constants_file(tmp_path / "constants") as constants:
        onnx_file.write_model(graph_of(constants), tmp_path / "g.onnx", constants)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.onnx", "g.onnx.data"]
    apart = onnx.load(tmp_path / "g.onnx", load_external_data=False).graph.initializer
    places = {t.name: {e.key: e.value for e in t.external_data} for t in apart}
    offsets = [int(place["offset"]) for place in places.values() if place]
    assert len(offsets) == 7
    assert all(offset % 4096 == 0 for offset in offsets)
    loaded = {t.name: t for t in onnx.load(tmp_path / "g.onnx").graph.initializer}
    for name, value in VALUES.items():
        wanted = value.astype(np.float32) if value.dtype.kind == "f" else value
        assert np.array_equal(numpy_helper.to_array(loaded[name]), wanted), name


def test_nothing_is_left_of_what_failed(tmp_path):
    with (
        pytest.raises(TypeError),  # numbers are not cut to integers
        constants_file(tmp_path / "constants") as constants,
    ):
        constants.add("rows", VALUES["rows"], np.dtype(np.int8))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_became_shorter_is_not_used(tmp_path):
    with constants_file(tmp_path / "constants") as constants:
        graph = graph_of(constants)
        (tmp_path / "constants").write_bytes(b"")
        with pytest.raises(OSError, match="became shorter"):
            onnx_file.write_model(graph, tmp_path / "g.onnx", constants)


def test_a_bundle_is_the_same_whose_constants_were_in_memory(files, monkeypatch):
    """Of an export, too: the file is used, and what is written has the same bytes."""
    seen = []
    real = export_bundle.folded_graph

    def folded_graph(*args, constants, **kwargs):
        seen.append(constants)
        return real(*args, constants=constants, **kwargs)

    monkeypatch.setattr(export_bundle, "folded_graph", folded_graph)
    export(files.adapter, files.out, weights=files.weights)
    assert seen[0].length("blocks.0.mlp.fc1.weight") > 0
    assert largest_difference(answers(files.out, files.case), files.case.reference) <= PARITY_FP32
    first = content(files.out)
    monkeypatch.setattr(module.ConstantsFile, "takes", lambda *_: False)
    export(files.adapter, files.out, weights=files.weights, force=True)
    assert content(files.out) == first
