from __future__ import annotations

import importlib.util
import sys

import pytest

from vptkit.runtime.doctor.library_probe import _PRODUCT, Answer, _product, probe_library


def child(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_later_words_stand_over_earlier_ones():
    code = "print('{\"stage\": 1, \"a\": 2}'); print('noise'); print('{\"stage\": 3}')"
    assert probe_library([], command=child(code)) == Answer(facts={"stage": 3, "a": 2})


@pytest.mark.parametrize(
    ("end", "ended"),
    [
        ("os.kill(os.getpid(), 11)", "the process ended with SIGSEGV"),
        ("sys.exit('libcudart.so.12 is missing')", "exit status 1: libcudart.so.12 is missing"),
        ("os._exit(7)", "exit status 7: no message"),
    ],
)
def test_what_a_child_said_before_it_ended_is_kept(end, ended):
    code = f'import os, sys; print(\'{{"stage": "loading it"}}\', flush=True); {end}'
    assert probe_library([], command=child(code)) == Answer(
        facts={"stage": "loading it"}, ended=ended
    )


def test_a_child_that_hangs_is_ended():
    hangs = ("sh", "-c", "echo '{\"stage\": 1}'; exec sleep 1000")  # Python may start slowly
    found = probe_library([], command=hangs, seconds=3)
    assert found == Answer(facts={"stage": 1}, ended="no answer in 3 s")


def test_onnx_runtime_of_this_python():
    import onnxruntime

    found = probe_library(["onnxruntime"])
    assert found.ended is None
    assert found.facts["version"] == onnxruntime.__version__
    assert found.facts["providers"] == onnxruntime.get_available_providers()
    assert found.facts["usable"] == {"CPUExecutionProvider": None}


def test_openvino_of_this_python():
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    found = probe_library(["openvino"])
    assert found.ended is None
    assert openvino.__version__.startswith(found.facts["version"])
    processor = found.facts["devices"]["CPU"]
    assert processor["wrong"] is None
    assert "FP32" in processor["types"]


def test_the_product_is_the_file_that_onnx_would_write():
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 2]) for n in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    model.ClearField("producer_name")
    assert model.SerializeToString() == _PRODUCT


class Library:
    """An ONNX Runtime that lies in one way."""

    def __init__(self, lie: str) -> None:
        self.lie = lie

    class SessionOptions:
        pass

    def InferenceSession(self, model, options, providers, enable_fallback):  # noqa: N802
        assert enable_fallback == 0
        if self.lie == "libraries":
            raise RuntimeError("libcublas.so.12 not found\nand more")
        return self

    def get_providers(self):
        return ["CPU"] if self.lie == "provider" else ["CUDA"]

    def run(self, names, feed):
        return [feed["x"] if self.lie == "numbers" else feed["x"] @ feed["x"]]


@pytest.mark.parametrize(
    ("lie", "answer"),
    [
        ("none", None),
        ("libraries", "libcublas.so.12 not found"),
        ("provider", "it did not start"),
        ("numbers", "it multiplied wrongly"),
    ],
)
def test_a_listed_provider_must_multiply(lie, answer):
    found = _product(Library(lie), "CUDA")
    assert found is None if answer is None else found.startswith(answer)


def test_a_library_that_is_not_there(monkeypatch, tmp_path):
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10 is missing')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = probe_library(["tensorrt"])
    assert found.ended is None
    assert "libnvinfer.so.10 is missing" in found.facts["missing"]
    assert found.facts["installed"] is True
    (tmp_path / "tensorrt.py").unlink()
    assert probe_library(["tensorrt"]).facts["installed"] is (
        importlib.util.find_spec("tensorrt") is not None
    )


def test_what_a_library_prints_is_no_answer(monkeypatch, tmp_path):
    text = "print('{\"printed\": 1}', flush=True)\n__version__ = '1.2'\n"
    (tmp_path / "tensorrt.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    facts = probe_library(["tensorrt"]).facts
    assert facts["version"] == "1.2"
    assert "printed" not in facts


def test_a_library_that_crashes_when_it_is_loaded(monkeypatch, tmp_path):
    (tmp_path / "tensorrt.py").write_text("import os; os.kill(os.getpid(), 11)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = probe_library(["tensorrt"])
    assert found == Answer(facts={"stage": "loading it"}, ended="the process ended with SIGSEGV")


def test_a_runtime_is_started_where_a_gpu_is(fake_gpu):
    found = probe_library(["tensorrt"])
    assert found.ended is None
    assert found.facts["version"] == fake_gpu.trt.__version__
    assert found.facts["runtime"] is True


@pytest.mark.parametrize(("change", "fact"), [(False, "runs"), (True, "refused")])
def test_a_backend_runs_a_bundle_or_says_why_not(make_bundle, change, fact):
    bundle = make_bundle(batch=2)
    if change:
        (bundle / "model.onnx").write_bytes(b"changed")
    found = probe_library(["backend", "cpu", str(bundle)])
    assert found.ended is None
    assert fact in found.facts
    assert len({"runs", "refused"} & found.facts.keys()) == 1
