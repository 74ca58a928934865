"""Which session opens which bundle, on which backend."""

from __future__ import annotations

import builtins
import hashlib
import sys
import threading

import numpy as np
import pytest

from tests.support.children import run_child
from vptkit import atomic_files
from vptkit.errors import (
    BundleError,
    MissingError,
    MissingExtraError,
    TargetError,
    VptkitError,
)
from vptkit.formats.bundle import open_bundle, write_manifest
from vptkit.runtime.session import factory
from vptkit.runtime.session.factory import open_session


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
    with pytest.raises(
        BundleError, match="an empty folder, not a bundle" if there else "no such folder"
    ):
        open_session(path)


LABELS = {0.0: ("a", "b", "c"), 10.0: ("d", "e", "f")}  # by the graph's shift


def says(session, tiny_model) -> float:
    """The shift that a session's logits have; its labels are held to it."""
    images = np.zeros((1, 24, 16, 3), np.uint8)
    shift = float(np.round((session.run(images) - tiny_model.logits(images)).mean()))
    assert session.bundle.labels == LABELS[shift]
    return shift


def test_exported_again_between_manifest_and_graph(make_bundle, monkeypatch, tiny_model):
    """Readers had the labels of one export and the logits of the other."""
    path, other = (make_bundle(labels=LABELS[s], shift=s) for s in LABELS)
    real = factory.open_graph

    def exchange(*arguments, **named):
        if other.exists():
            path.rename(path.with_name("before"))
            other.rename(path)
        return real(*arguments, **named)

    monkeypatch.setattr(factory, "open_graph", exchange)
    assert says(open_session(path, threads=1), tiny_model) == 10.0


def test_exported_again_between_manifest_and_golden_answers(make_bundle, tiny_model):
    path, other = (make_bundle(labels=LABELS[s], shift=s) for s in LABELS)
    content = (other / "golden.safetensors").read_bytes()
    (other / "golden.safetensors").write_bytes(content[:-1] + b"x")
    write_manifest(
        other,
        {
            k: v
            for k, v in open_bundle(other, verify=False).manifest.items()
            if k not in ("format", "files")
        },
    )
    session = open_session(path, threads=1)
    path.rename(path.with_name("before"))
    other.rename(path)
    with pytest.raises(BundleError, match="differs from its digest"):
        session.bundle.golden()
    assert says(session, tiny_model) == 0.0


@pytest.mark.parametrize("steps", [False, True])
def test_readers_while_it_is_exported_again_and_again(make_bundle, monkeypatch, tiny_model, steps):
    path, other = (make_bundle(labels=LABELS[s], shift=s) for s in LABELS)
    if steps:  # a file system that cannot exchange
        monkeypatch.setattr(atomic_files, "_renameat2", lambda *_: False)
    done = threading.Event()

    def export():
        while not done.wait(0.005):
            atomic_files._put(other, path, force=True)

    exporter = threading.Thread(target=export)
    exporter.start()
    try:
        found = [says(open_session(path, threads=1), tiny_model) for _ in range(30)]
    finally:
        done.set()
        exporter.join(30)
    assert set(found) <= set(LABELS)


def test_a_graph_that_onnxruntime_cannot_load_is_a_target_error(make_bundle, edit_manifest):
    path = make_bundle(golden=False)
    content = (path / "model.onnx").read_bytes().replace(b"ReduceMean", b"ReduceMoan")
    (path / "model.onnx").write_bytes(content)
    edit_manifest(path, files={"model.onnx": hashlib.sha256(content).hexdigest()})
    with pytest.raises(TargetError, match=r"ONNX Runtime \d.* cannot load the graph") as caught:
        open_session(path)
    assert caught.value.exit_code == 4
    assert str(path / "model.onnx") in str(caught.value)
    assert "/proc/" not in str(caught.value)


def test_what_is_no_graph_is_refused(make_bundle, edit_manifest):
    path = make_bundle(golden=False)
    (path / "model.onnx").write_bytes(b"nonsense")
    edit_manifest(path, files={"model.onnx": hashlib.sha256(b"nonsense").hexdigest()})
    with pytest.raises(BundleError, match="not a readable ONNX graph"):
        open_session(path)


def test_an_unknown_layout_is_refused(make_bundle, edit_manifest):
    path = make_bundle()
    edit_manifest(path, layout="tree")
    with pytest.raises(BundleError, match="layout is 'tree', expected one of baked, bank"):
        open_session(path)


@pytest.mark.parametrize("backend", ["cuda", "tensorrt", "tensorrt-rtx", "ort-tensorrt"])
def test_a_named_backend_that_cannot_run_is_an_error(make_bundle, backend, monkeypatch):
    monkeypatch.setattr("vptkit.runtime.backends.selection.probe", no_gpu)
    with pytest.raises(MissingError, match=f"{backend} needs an NVIDIA GPU.*no GPU") as caught:
        open_session(make_bundle(), backend)
    assert caught.value.exit_code == 5


def test_auto_says_what_it_took_and_why(make_bundle, monkeypatch):
    monkeypatch.setattr("vptkit.runtime.backends.selection.probe", no_gpu)
    session = open_session(make_bundle(), "auto")
    assert (session.backend, session.choice) == ("cpu", "there is no GPU to use")


def test_the_default_is_that_of_the_commands(make_bundle, monkeypatch):
    monkeypatch.setattr("vptkit.runtime.backends.selection.probe", no_gpu)
    monkeypatch.delenv("VPTKIT_BACKEND", raising=False)
    assert open_session(make_bundle()).choice == "there is no GPU to use"
    monkeypatch.setenv("VPTKIT_BACKEND", "cpu")
    assert open_session(make_bundle()).choice == "$VPTKIT_BACKEND names it"


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

    for name in ("onnxruntime_graph", "onnxruntime_library"):
        monkeypatch.delitem(sys.modules, f"vptkit.runtime.backends.{name}", raising=False)
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
