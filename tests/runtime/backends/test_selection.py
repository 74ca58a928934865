from __future__ import annotations

import builtins
import sys
from types import SimpleNamespace

import pytest

from tests.support.fakes.gpu import ORIN_GPU
from vptkit.errors import BundleError, MissingError, MissingExtraError, TargetError, VptkitError
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.backends import selection
from vptkit.runtime.backends.selection import (
    AUTO_ORDER,
    BACKENDS,
    OPENVINO,
    computed_precisions,
    default_backend,
    means_cpu,
    on_nvidia,
    on_processor,
    open_graph,
)
from vptkit.runtime.backends.tensorrt_library import LIBRARIES
from vptkit.runtime.engine_build.builder import BuildOptions, build_engine


@pytest.fixture
def bundle(make_bundle):
    return open_bundle(make_bundle())


@pytest.fixture
def no_gpu(monkeypatch):
    def probe():
        raise MissingError("no driver here.")

    monkeypatch.setattr(selection, "probe", probe)


@pytest.fixture
def machine(monkeypatch):
    """A function that sets what each backend does: an error that it raises, or a graph."""
    monkeypatch.setattr(selection, "probe", lambda: ORIN_GPU)
    tried = []

    def describe(**outcomes):
        def open_(bundle, backend, threads, options):
            tried.append((backend, threads, options))
            outcome = outcomes.get(backend.replace("-", "_"), MissingError(f"no {backend}"))
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(selection, "_open", open_)
        return tried

    return describe


def test_the_order_of_auto_knows_every_backend():
    assert sorted((*AUTO_ORDER, *OPENVINO)) == sorted(
        BACKENDS
    )  # OpenVINO is never chosen by itself


def test_where_each_backend_computes():
    assert [b for b in BACKENDS if on_processor(b)] == ["cpu", "openvino", "openvino-bf16"]
    nvidia = ["cuda", "tensorrt", "tensorrt-rtx", "ort-tensorrt"]
    assert [b for b in BACKENDS if on_nvidia(b)] == nvidia
    assert (
        computed_precisions("cpu", "int8") == computed_precisions("openvino", "int8") == ("int8",)
    )
    assert computed_precisions("openvino-bf16", "int8") == ("int8", "bf16")
    assert computed_precisions("openvino-bf16", "bf16") == ("bf16",)
    assert computed_precisions("openvino-npu", "fp32") == ("fp32", "fp16")


@pytest.mark.parametrize("backend", OPENVINO)
def test_without_openvino_the_extra_is_named(bundle, monkeypatch, backend):
    monkeypatch.delitem(sys.modules, "vptkit.runtime.backends.openvino_graph", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        MissingExtraError, match=rf"{backend} backend .*vptkit\[openvino\]"
    ) as caught:
        open_graph(bundle, backend)
    assert caught.value.exit_code == 5


def test_openvino_is_asked_for_by_device(bundle, monkeypatch):
    asked = []
    module = SimpleNamespace(OpenvinoGraph=lambda _, **options: asked.append(options))
    monkeypatch.setitem(sys.modules, "vptkit.runtime.backends.openvino_graph", module)
    for backend in OPENVINO:
        assert open_graph(bundle, backend, 3).backend == backend
    assert [(one["device"], one["bf16"]) for one in asked] == [
        ("CPU", False),
        ("CPU", True),
        ("GPU", False),
        ("NPU", False),
    ]
    assert {one["threads"] for one in asked} == {3}


def test_cpu_is_onnx_runtime(bundle):
    opened = open_graph(bundle, "cpu", 1)
    assert (opened.backend, opened.graph.threads, opened.refused) == ("cpu", 1, {})
    assert "onnxruntime" in opened.graph.versions


def test_without_a_gpu_auto_takes_the_processor_and_says_why(bundle, no_gpu):
    opened = open_graph(bundle, "auto")
    assert (opened.backend, opened.explanation) == ("cpu", "there is no GPU to use")


@pytest.mark.parametrize("seen", ["NVIDIA Jetson Orin Nano", "/dev/nvidia0"])
def test_a_gpu_without_its_driver_is_not_no_gpu(bundle, no_gpu, monkeypatch, seen):
    monkeypatch.setattr(selection, "visible_gpu", lambda: seen)
    with pytest.raises(MissingError, match=rf"GPU here \({seen}\).*no driver here.*--backend cpu"):
        open_graph(bundle, "auto")
    assert not means_cpu("auto")
    assert open_graph(bundle, "cpu").backend == "cpu"


def test_without_a_gpu_what_the_processor_lacks_is_named(bundle, no_gpu, import_error):
    import_error(ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime"))
    with pytest.raises(MissingExtraError, match=r"vptkit\[cpu\]"):
        open_graph(bundle, "auto")


def test_the_variable_names_the_default(bundle, no_gpu, monkeypatch):
    monkeypatch.delenv("VPTKIT_BACKEND", raising=False)
    assert open_graph(bundle).explanation == "there is no GPU to use"
    assert means_cpu(None)
    monkeypatch.setenv("VPTKIT_BACKEND", "")
    assert default_backend() == "auto"
    monkeypatch.setenv("VPTKIT_BACKEND", "cpu")
    assert open_graph(bundle).explanation == "$VPTKIT_BACKEND names it"
    monkeypatch.setenv("VPTKIT_BACKEND", "tensorrt")
    assert not means_cpu(None)
    with pytest.raises(MissingError, match="backend tensorrt needs an NVIDIA GPU"):
        open_graph(bundle)
    monkeypatch.setenv("VPTKIT_BACKEND", "gpu")
    with pytest.raises(
        VptkitError, match=r"\$VPTKIT_BACKEND 'gpu' is not known, expected one of cpu"
    ):
        open_graph(bundle)
    assert open_graph(bundle, "cpu").backend == "cpu"  # what is named counts


@pytest.mark.parametrize("backend", AUTO_ORDER[:-1])
def test_a_named_backend_without_a_gpu_is_an_error(bundle, no_gpu, backend):
    with pytest.raises(
        MissingError,
        match=f"backend {backend} needs an NVIDIA GPU.*no driver here.*--backend cpu",
    ) as caught:
        open_graph(bundle, backend)
    assert caught.value.exit_code == 5


def test_auto_takes_the_first_that_runs_and_keeps_every_reason(bundle, machine):
    graph = SimpleNamespace()
    tried = machine(
        tensorrt=MissingError("no engine: run vptkit build"),
        cuda=TargetError("1 MatMul elsewhere"),
        ort_tensorrt=graph,
        cpu=AssertionError("not to be tried"),
    )
    options = {"cuda_graph": False, "trust_engines": True}
    opened = open_graph(bundle, "auto", 3, **options)
    assert opened.graph is graph
    assert opened.backend == "ort-tensorrt"
    assert opened.reason.endswith("that runs this bundle on Orin")
    assert list(opened.refused.items()) == [
        ("tensorrt", "no engine: run vptkit build"),
        ("tensorrt-rtx", "no tensorrt-rtx"),
        ("cuda", "1 MatMul elsewhere"),
    ]
    assert tried == [(name, 3, options) for name in AUTO_ORDER[:4]]


def test_auto_does_not_leave_a_gpu_for_the_processor(bundle, machine, monkeypatch):
    no_engine = MissingError(f"no engine. Build it here: vptkit build {bundle.path}")
    tried = machine(cpu=SimpleNamespace(), tensorrt=no_engine)
    monkeypatch.setattr(selection, "find_module", lambda _: None)
    with pytest.raises(
        MissingError, match=r"GPU here \(Orin\).*no engine.*--backend cpu"
    ) as caught:
        open_graph(bundle, "auto")
    assert f"vptkit build {bundle.path}" in str(caught.value)
    assert [name for name, *_ in tried] == list(AUTO_ORDER[:-1])


def test_a_damaged_bundle_is_not_a_reason_to_try_the_next(bundle, machine):
    machine(tensorrt=BundleError("damaged"), cpu=SimpleNamespace())
    with pytest.raises(BundleError, match="damaged"):
        open_graph(bundle, "auto")


@pytest.mark.parametrize("error", [MissingError("none"), TargetError("cannot")])
def test_a_named_backend_does_not_fall_back(bundle, machine, error):
    machine(tensorrt=error, cpu=SimpleNamespace())
    with pytest.raises(type(error), match=str(error)):
        open_graph(bundle, "tensorrt")


def test_an_unknown_backend_is_a_usage_error(bundle):
    with pytest.raises(VptkitError, match="backend 'gpu' is not known, expected one of cpu, cuda"):
        open_graph(bundle, "gpu")


@pytest.mark.parametrize("backend", ["cuda", "ort-tensorrt"])
def test_this_build_of_onnx_runtime_has_no_gpu(bundle, monkeypatch, backend):
    monkeypatch.setattr(selection, "probe", lambda: ORIN_GPU)
    with pytest.raises(MissingError, match="is not in this build of ONNX Runtime"):
        open_graph(bundle, backend)


@pytest.fixture
def import_error(monkeypatch):
    """A function that makes importing onnxruntime fail."""
    real = builtins.__import__

    def install(error):
        def broken(name, *args, **kwargs):
            if name == "onnxruntime":
                raise error
            return real(name, *args, **kwargs)

        for name in ("onnxruntime_graph", "onnxruntime_library"):
            monkeypatch.delitem(sys.modules, f"vptkit.runtime.backends.{name}", raising=False)
        monkeypatch.setattr("builtins.__import__", broken)

    return install


def test_without_onnx_runtime_the_command_is_named(bundle, monkeypatch, import_error):
    monkeypatch.setattr(selection, "probe", lambda: ORIN_GPU)
    import_error(ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime"))
    with pytest.raises(MissingExtraError, match=r"vptkit\[cpu\]"):
        open_graph(bundle, "cpu")
    with pytest.raises(MissingError, match=r'pip install "onnxruntime-gpu\[cuda,cudnn\]"'):
        open_graph(bundle, "cuda")


def test_another_missing_module_is_a_defect(bundle, import_error):
    import_error(ModuleNotFoundError("No module named 'coloredlogs'", name="coloredlogs"))
    with pytest.raises(ModuleNotFoundError, match="coloredlogs"):
        open_graph(bundle, "cpu")


def test_a_broken_installation_is_named(bundle, import_error):
    import_error(ImportError("libcudart.so.12: cannot open shared object file"))
    with pytest.raises(MissingError, match=r"installed but does not load: libcudart\.so\.12"):
        open_graph(bundle, "cpu")


def test_auto_takes_an_engine_once_it_is_built(fake_gpu, bundle, import_error):
    with pytest.raises(MissingError, match="no engine for TensorRT") as caught:
        open_graph(bundle, "auto", 1)
    assert f"Build it here: vptkit build {bundle.path}. To run on" in str(caught.value)
    with pytest.raises(MissingError, match="no engine for TensorRT"):
        open_graph(bundle, "tensorrt")

    build_engine(bundle, BuildOptions(library="tensorrt", batch=(1, 2, 8)))
    import_error(ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime"))
    opened = open_graph(bundle, "auto", 1)
    assert (opened.backend, opened.refused) == ("tensorrt", {})


@pytest.fixture
def no_rtx(monkeypatch):
    for name in LIBRARIES["tensorrt_rtx"].modules:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("no_rtx")
def test_auto_does_not_go_past_an_engine_that_does_not_serve(
    fake_gpu, bundle, make_bundle, monkeypatch
):
    other = fake_gpu.engine(make_bundle(feed="pixels"))
    monkeypatch.setattr(
        "vptkit.runtime.backends.tensorrt_graph.open_engine", lambda *_, **__: other.opened()
    )
    with pytest.raises(TargetError, match=r"the manifest wants.*--backend cpu"):
        open_graph(bundle, "auto", 1)

    def start(logger):
        raise TypeError("factory function returned nullptr")

    monkeypatch.setattr(fake_gpu.trt, "Runtime", start)
    with pytest.raises((MissingError, TargetError), match="starts no runtime"):
        open_graph(bundle, "auto", 1)


@pytest.mark.usefixtures("no_rtx")
def test_a_gpu_without_tensorrt(fake_gpu, bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingError, match="TensorRT is not installed") as caught:
        open_graph(bundle, "auto", 1)
    assert f"Then build the engine: vptkit build {bundle.path}. To run" in str(caught.value)
    assert caught.value.exit_code == 5
