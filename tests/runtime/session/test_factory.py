from __future__ import annotations

import builtins
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.children import run_child
from vptkit.errors import (
    BundleError,
    DataError,
    MissingError,
    MissingExtraError,
    TargetError,
    VptkitError,
)
from vptkit.formats.bundle import open_bundle
from vptkit.images.preprocess import normalize
from vptkit.runtime.session.baked_session import GraphSession
from vptkit.runtime.session.factory import open_session

if TYPE_CHECKING:
    from pathlib import Path


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 24, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("feed", ["images", "pixels"])
@pytest.mark.parametrize("batch", ["dynamic", 1, 4])
@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_logits_are_those_of_the_model(make_bundle, tiny_model, feed, batch, count):
    session = open_session(make_bundle(feed=feed, batch=batch))
    images = noise(count)

    logits = session.run(images)

    assert logits.shape == (count, 3)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, tiny_model.logits(images), rtol=0, atol=2e-5)


def test_views_that_are_not_contiguous_give_the_same_logits(make_bundle, tiny_model):
    images = noise(6)[::2, :, ::-1]
    logits = open_session(make_bundle()).run(images)
    np.testing.assert_allclose(logits, tiny_model.logits(images), rtol=0, atol=2e-5)


class RecordingGraph:
    threads, versions = 1, {}

    def __init__(self, classes: int = 3) -> None:
        self.batches: list[np.ndarray] = []
        self.classes = classes

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.batches.append(batch)
        return np.zeros((len(batch), self.classes), np.float32)


def test_a_fixed_batch_is_fed_in_portions_and_padded_with_the_last_image(make_bundle):
    graph = RecordingGraph()
    session = GraphSession(bundle=open_bundle(make_bundle(batch=4)), backend="fake", graph=graph)
    images = noise(6)

    assert session.run(images).shape == (6, 3)
    np.testing.assert_array_equal(graph.batches[0], images[:4])
    np.testing.assert_array_equal(graph.batches[1], images[[4, 5, 5, 5]])


def test_a_free_batch_is_fed_whole(make_bundle):
    graph = RecordingGraph()
    session = GraphSession(bundle=open_bundle(make_bundle()), backend="fake", graph=graph)
    session.run(noise(6))
    assert [len(b) for b in graph.batches] == [6]


def test_pixels_are_normalised(make_bundle, tiny_model):
    graph = RecordingGraph()
    bundle = open_bundle(make_bundle(feed="pixels"))
    images = noise(2)
    GraphSession(bundle=bundle, backend="fake", graph=graph).run(images)
    np.testing.assert_array_equal(graph.batches[0], normalize(images, tiny_model.preprocess))


@pytest.mark.parametrize(
    ("images", "came"),
    [
        (noise(2).astype(np.float32), r"float32 \[2, 24, 16, 3\]"),
        (noise(2)[0], r"uint8 \[24, 16, 3\]"),
        (noise(2).transpose(0, 3, 1, 2), r"uint8 \[2, 3, 24, 16\]"),
        (noise(2)[:, :-1], r"uint8 \[2, 23, 16, 3\]"),
        ([[1, 2]], "list"),
    ],
)
def test_other_images_are_refused(make_bundle, images, came):
    session = open_session(make_bundle())
    with pytest.raises(
        DataError, match=rf"images: came as {came}, expected uint8 \[B, 24, 16, 3\]"
    ):
        session.run(images)


def test_a_graph_that_does_not_fit_its_labels_is_refused(make_bundle):
    session = open_session(make_bundle(labels=("a", "b", "c", "d")))
    with pytest.raises(BundleError, match=r"logits came as \[1, 3\], expected \[1, 4\]"):
        session.run(noise(1))


def test_a_graph_with_another_input_than_the_manifest_is_refused(make_bundle):
    inputs = [{"name": "pixels", "dtype": "float32", "shape": ["B", 3, 24, 16]}]
    with pytest.raises(BundleError, match=r"\('images', 'tensor\(uint8\)'\).*pixels"):
        open_session(make_bundle(inputs=inputs))


def test_a_changed_file_is_refused(make_bundle):
    path = make_bundle()
    model = path / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\x01")
    with pytest.raises(BundleError, match=r"model\.onnx differs from its digest"):
        open_session(path)


def test_a_missing_file_is_named(make_bundle):
    path = make_bundle()
    (path / "golden.safetensors").unlink()
    with pytest.raises(BundleError, match=r"golden\.safetensors is missing"):
        open_session(path)


@pytest.mark.parametrize("there", [True, False])
def test_what_is_not_a_bundle_is_refused(tmp_path, there):
    path = tmp_path if there else tmp_path / "nowhere.vptk"
    with pytest.raises(BundleError, match=r"not a bundle: no manifest\.json"):
        open_session(path)


def test_a_graph_that_onnxruntime_cannot_load_is_a_target_error(make_bundle, edit_manifest):
    import hashlib

    path = make_bundle(golden=False)
    (path / "model.onnx").write_bytes(b"nonsense")
    edit_manifest(path, files={"model.onnx": hashlib.sha256(b"nonsense").hexdigest()})
    with pytest.raises(TargetError, match=r"ONNX Runtime \d.* cannot load the graph") as caught:
        open_session(path)
    assert caught.value.exit_code == 4


def test_an_unknown_layout_is_refused(make_bundle):
    with pytest.raises(BundleError, match="layout 'tree', expected 'baked' or 'bank'"):
        open_session(make_bundle(layout="tree"))


def test_a_baked_bundle_has_one_adapter(make_bundle):
    session = open_session(make_bundle())
    alone = session.run(noise(2))
    for adapter in ("tiny", 0, ["tiny", "tiny"]):
        np.testing.assert_array_equal(session.run(noise(2), adapter), alone)
    for adapter in ("other", 1, ["tiny", "other"]):
        with pytest.raises(BundleError, match=r"no adapter '(other|1)', only tiny"):
            session.run(noise(2), adapter)


@pytest.mark.parametrize("backend", ["cuda", "tensorrt", "tensorrt-rtx", "ort-tensorrt"])
def test_a_named_backend_that_cannot_run_is_an_error(make_bundle, backend, monkeypatch):
    monkeypatch.setattr("vptkit.runtime.backends.selection.probe", no_gpu)
    with pytest.raises(MissingError, match=f"{backend} needs an NVIDIA GPU.*no GPU") as caught:
        open_session(make_bundle(), backend)
    assert caught.value.exit_code == 5


def test_auto_says_what_it_took_and_why(make_bundle, monkeypatch):
    monkeypatch.setattr("vptkit.runtime.backends.selection.probe", no_gpu)
    session = open_session(make_bundle(), "auto")
    assert session.backend == "cpu"
    assert "tensorrt, tensorrt-rtx, cuda, ort-tensorrt: there is no GPU" in session.choice


def no_gpu():
    raise MissingError("there is no GPU")


def test_an_unknown_backend_is_a_usage_error(make_bundle):
    with pytest.raises(VptkitError, match="backend 'cuba' is not known") as caught:
        open_session(make_bundle(), "cuba")
    assert caught.value.exit_code == 2


def test_threads_must_be_positive(make_bundle):
    with pytest.raises(VptkitError, match="threads is 0"):
        open_session(make_bundle(), threads=0)
    assert open_session(make_bundle(), threads=1).threads == 1


def test_without_onnxruntime_the_extra_is_named(make_bundle, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "vptkit.runtime.backends.onnxruntime_graph", raising=False)
    monkeypatch.setattr("builtins.__import__", without)
    with pytest.raises(MissingExtraError, match=r"vptkit\[cpu\]") as caught:
        open_session(make_bundle())
    assert caught.value.exit_code == 5


def test_a_session_is_quiet(make_bundle):
    code = (
        "import sys, numpy as np; from vptkit.runtime.session.factory import open_session; "
        "open_session(sys.argv[1]).run(np.zeros((1, 24, 16, 3), np.uint8))"
    )
    done = run_child([sys.executable, "-c", code, make_bundle()])
    assert (done.stdout, done.stderr) == ("", "")


def test_predict_of_a_session(make_bundle, colour_folders: Path):
    found = list(open_session(make_bundle()).predict([colour_folders / "red"], top_k=1))
    assert [p.top[0][0] for p in found] == ["red"] * 4
