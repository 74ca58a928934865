from __future__ import annotations

import dataclasses
import json
import sys
from types import SimpleNamespace

import pytest

from tests.support.device_trees import plant
from tests.support.fakes.gpu import ORIN, ORIN_GPU
from vptkit.errors import BundleError, MissingError
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.backends.selection import AUTO_ORDER
from vptkit.runtime.doctor import diagnosis
from vptkit.runtime.doctor.diagnosis import examine
from vptkit.runtime.doctor.library_probe import Answer
from vptkit.runtime.engine_build.builder import BuildOptions, build_engine

TRIED = tuple(name for name in AUTO_ORDER if name != "ort-tensorrt")
CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))
NOTHING = Answer(facts={"stage": "loading it", "missing": "No module named it"})
REINSTALL = "sudo apt install --reinstall $(dpkg -l | awk '/^ii.*nvinfer/ {print $2}')"
TRT = Answer(facts={"version": "10.3.0", "runtime": True, "errors": []})


def ort(**usable: str | None) -> Answer:
    usable = {f"{name}ExecutionProvider": why for name, why in usable.items()}
    return Answer(facts={"version": "1.23.2", "providers": [*usable], "usable": usable})


class World:
    """A machine and what its libraries answer; `asked` keeps the questions."""

    def __init__(self, root) -> None:
        self.root = root
        self.answers = {
            "tensorrt": NOTHING,
            "tensorrt_rtx": NOTHING,
            "onnxruntime": ort(CPU=None),
            "openvino": NOTHING,
        }
        self.backends: dict[str, Answer] = {}
        self.asked: list[tuple[str, ...]] = []

    def inquire(self, question) -> Answer:
        self.asked.append(tuple(question))
        if question[0] == "backend":
            return self.backends[question[1]]
        return self.answers[question[0]]

    def examine(self, bundle=None) -> SimpleNamespace:
        found = examine(bundle, root=self.root, inquire=self.inquire)
        json.dumps(found.to_json(), allow_nan=False)
        by_name = {check.name: check for check in found.checks}
        assert len(by_name) == len(found.checks)
        return SimpleNamespace(checks=by_name, backends=found.backends, ok=found.ok)


@pytest.fixture
def server(tmp_path) -> World:
    return World(plant("server-x86", tmp_path / "root"))


@pytest.fixture
def orin(tmp_path, monkeypatch) -> World:
    real = diagnosis.detect_machine
    monkeypatch.setattr(
        diagnosis, "detect_machine", lambda root: real(root) | {"gpu": ORIN_GPU.to_json()}
    )
    monkeypatch.setattr(diagnosis, "probe", lambda: ORIN_GPU)
    return World(plant("orin-nano-jp62", tmp_path / "root"))


def test_a_server_without_a_gpu_runs_on_its_processor(server):
    found = server.examine()
    assert (found.ok, found.backends) == (True, ("cpu",))
    assert not {"TensorRT", "TensorRT-RTX"} & found.checks.keys()  # nothing could use them
    optional = {name for name in found.checks if "extra" in name or name == "OpenVINO"}
    assert all(check.fix is None for name, check in found.checks.items() if name not in optional)
    assert found.checks["OpenVINO"].fix == 'pip install "vptkit[openvino]"'


@pytest.mark.parametrize(("cuda", "package"), [((12, 8), "tensorrt-cu12"), ((13, 0), "tensorrt")])
def test_a_server_with_a_gpu_is_told_what_to_install(server, monkeypatch, cuda, package):
    gpu = dataclasses.replace(
        ORIN_GPU, name="NVIDIA H200", capability=(9, 0), driver=cuda
    ).to_json()
    real = diagnosis.detect_machine
    monkeypatch.setattr(diagnosis, "detect_machine", lambda root: real(root) | {"gpu": gpu})
    found = server.examine()
    assert found.checks["TensorRT"].fix == f"pip install {package}"
    assert found.checks["TensorRT-RTX"].fix == 'pip install "vptkit[trt-rtx]"'
    broken = Answer(facts={"version": "10.3.0", "failed": "CUDA initialization failure"})
    server.answers |= {"tensorrt": broken, "tensorrt_rtx": broken}
    found = server.examine()
    assert found.checks["TensorRT"].fix == f"pip install --force-reinstall {package}"
    assert found.checks["TensorRT-RTX"].fix == (
        "pip install --force-reinstall tensorrt-rtx-cu13-bindings tensorrt-rtx-cu13-libs"
    )


def test_a_board_needs_no_onnx_runtime(orin):
    orin.answers |= {"tensorrt": TRT, "onnxruntime": NOTHING}
    found = orin.examine()
    assert found.backends == ("tensorrt",)
    assert found.checks["TensorRT"].state == "ok"
    assert found.checks["ONNX Runtime"].fix == 'pip install "vptkit[cpu]"'
    assert "TensorRT-RTX" not in found.checks  # there is none for Jetson


def test_the_tensorrt_of_the_jetpack_is_named(orin):
    orin.answers["tensorrt"] = TRT
    found = orin.examine().checks["TensorRT"].found
    assert found == "10.3.0, a runtime starts (this JetPack brings 10.3.0)"


@pytest.mark.parametrize(
    ("version", "trouble"), [("8.5.2.2", "no LayerNormalization"), ("8.6.10", "no fused attention")]
)
def test_a_tensorrt_that_is_known_for_trouble_is_a_warning(orin, version, trouble):
    orin.answers["tensorrt"] = Answer(facts=TRT.facts | {"version": version})
    found = orin.examine()
    assert found.checks["TensorRT"].state == "warning"
    assert trouble in found.checks["TensorRT"].found
    assert "tensorrt" in found.backends


def test_a_machine_that_can_run_nothing(orin):
    orin.answers["onnxruntime"] = NOTHING
    found = orin.examine()
    assert (found.ok, found.backends) == (False, ())
    assert found.checks["TensorRT"].fix.startswith("sudo apt install tensorrt")


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (
            Answer(facts={"stage": "loading it"}, ended="the process ended with SIGSEGV"),
            "the process ended with SIGSEGV, while loading it",
        ),
        (
            Answer(
                facts={"stage": "starting a runtime", "version": "10.3.0"},
                ended="the process ended with SIGSEGV",
            ),
            "10.3.0 is there, but: the process ended with SIGSEGV, while starting a runtime",
        ),
        (
            Answer(facts={"version": "10.3.0", "failed": "CUDA initialization failure"}),
            "10.3.0 is there, but: CUDA initialization failure",
        ),
    ],
)
def test_a_broken_tensorrt_is_not_a_backend(orin, answer, found):
    orin.answers |= {"tensorrt": answer, "onnxruntime": NOTHING}
    examined = orin.examine()
    assert examined.backends == ()
    check = examined.checks["TensorRT"]
    assert (check.state, check.found, check.fix) == ("missing", found, REINSTALL)


def test_a_tensorrt_that_is_there_and_does_not_load(orin):
    facts = {"missing": "libnvinfer.so.10 is missing", "installed": True}
    orin.answers["tensorrt"] = Answer(facts=facts)
    check = orin.examine().checks["TensorRT"]
    assert (check.state, check.found, check.fix) == (
        "missing",
        "it does not load: libnvinfer.so.10 is missing",
        REINSTALL,
    )


def test_a_tensorrt_without_a_gpu_cannot_run_engines(server):
    server.answers["tensorrt"] = Answer(facts={"version": "11.4.0", "gpu": "no driver"})
    found = server.examine()
    assert found.backends == ("cpu",)
    assert found.checks["TensorRT"].state == "warning"


@pytest.mark.parametrize(
    ("python", "base", "environment", "fix"),
    [
        (f"python3.{sys.version_info.minor}", "/usr", True, "sed -i"),
        ("python3", "/usr", True, "sed -i"),
        ("python3.1", "/usr", True, "/usr/bin/python3.1 -m venv --system-site-packages"),
        ("python3", "/opt/conda", False, "/usr/bin/python3 -m venv --system-site-packages"),
        ("python3", "/opt/conda", True, "/usr/bin/python3 -m venv --system-site-packages"),
        (f"python3.{sys.version_info.minor}", "/usr", False, "sudo apt"),
    ],
)
def test_a_tensorrt_that_the_environment_hides(orin, monkeypatch, python, base, environment, fix):
    (orin.root / f"usr/lib/{python}/dist-packages/tensorrt").mkdir(parents=True)
    monkeypatch.setattr(sys, "base_prefix", base)
    monkeypatch.setattr(sys, "prefix", "/home/me/env" if environment else base)
    found = orin.examine().checks["TensorRT"].fix
    assert fix in found
    assert ("/home/me/env/pyvenv.cfg" in found) == (fix == "sed -i")


def test_a_provider_that_is_listed_and_does_not_work(orin):
    orin.answers["onnxruntime"] = ort(Tensorrt="it did not start", CUDA="no kernel image", CPU=None)
    found = orin.examine()
    assert found.backends == ("cpu",)
    check = found.checks["ONNX Runtime CUDA"]
    assert (check.state, check.found) == ("missing", "listed, but: no kernel image")
    assert "no code for a Jetson's GPU" in check.fix
    assert found.checks["ONNX Runtime CPU"].state == "ok"


def test_a_provider_that_crashes_is_not_taken_for_one_that_works(orin):
    facts = {"version": "1.23.2", "providers": [TENSORRT, CUDA, CPU], "usable": {CPU: None}}
    orin.answers["onnxruntime"] = Answer(facts=facts, ended="the process ended with SIGABRT")
    found = orin.examine()
    assert found.backends == ("cpu",)
    assert found.checks["ONNX Runtime CUDA"].found == "listed, but: the process ended with SIGABRT"


def test_an_onnx_runtime_that_does_not_load(server):
    facts = {"stage": "loading it", "missing": "libcudart.so.12 is missing", "installed": True}
    server.answers["onnxruntime"] = Answer(facts=facts)
    found = server.examine()
    assert not found.ok
    check = found.checks["ONNX Runtime"]
    assert check.found == "it does not load: libcudart.so.12 is missing"
    assert check.fix.startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install")


def test_a_bundle_is_tried_on_every_backend(orin, make_bundle, monkeypatch):
    bundle = make_bundle()
    orin.answers["tensorrt"] = TRT
    orin.backends = {
        "tensorrt": Answer(facts={"refused": "no engine", "exit_code": 5}),
        "tensorrt-rtx": Answer(facts={"refused": "not installed", "exit_code": 5}),
        "cuda": Answer(facts={"stage": "running it"}, ended="the process ended with SIGSEGV"),
        "cpu": Answer(facts={"runs": True}),
    }
    found = orin.examine(bundle)
    assert found.backends == ("cpu",)
    assert [q[1:] for q in orin.asked if q[0] == "backend"] == [
        (name, str(bundle)) for name in TRIED
    ]
    assert found.checks["backend ort-tensorrt"].found == "not tried: it would build an engine"
    states = {name: found.checks[f"backend {name}"].state for name in AUTO_ORDER}
    assert states == {
        "tensorrt": "missing",
        "tensorrt-rtx": "missing",
        "ort-tensorrt": "unknown",
        "cuda": "unknown",
        "cpu": "ok",
    }
    assert found.checks["backend cuda"].found.endswith("SIGSEGV, while running it")
    engine = found.checks["TensorRT engine"]
    assert (engine.state, engine.fix) == ("missing", f"vptkit build {bundle}")


def test_an_engine_that_is_there(orin, make_bundle, monkeypatch):
    bundle = make_bundle()
    engine = SimpleNamespace(path=bundle / "engines/0123.engine")
    monkeypatch.setattr(diagnosis, "find_engine", lambda *_, **__: engine)
    orin.answers["tensorrt"] = TRT
    orin.backends = dict.fromkeys(AUTO_ORDER, Answer(facts={"runs": True}))
    found = orin.examine(bundle)
    assert found.backends == TRIED
    assert (found.checks["TensorRT engine"].state, found.checks["TensorRT engine"].found) == (
        "ok",
        str(engine.path),
    )


def test_without_a_gpu_only_the_processor_is_tried(server, make_bundle):
    server.backends = {"cpu": Answer(facts={"refused": "too old", "exit_code": 4})}
    bundle = make_bundle()
    found = server.examine(bundle)
    assert not found.ok
    assert server.asked[-1] == ("backend", "cpu", str(bundle))
    assert server.asked[-3:-1] == [("onnxruntime",), ("openvino",)]
    assert "backend cuda" not in found.checks
    assert not any("engine" in name for name in found.checks)


def openvino(**types: str | None) -> Answer:
    """A device for each name: the types that it has, or None of one that does not multiply."""
    devices = {
        name: {"wrong": "no kernel"}
        if found is None
        else {"wrong": None, "name": f"an Intel {name}", "types": found.split()}
        for name, found in types.items()
    }
    return Answer(facts={"version": "2026.4.1", "devices": devices})


def test_the_devices_of_openvino_are_backends(server, make_bundle):
    server.answers["openvino"] = openvino(CPU="FP32 INT8", GPU=None)
    found = server.examine()
    assert found.backends == ("cpu", "openvino")
    assert found.checks["OpenVINO"].found == "2026.4.1, finds CPU, GPU"
    assert found.checks["OpenVINO CPU"].found.startswith("an Intel CPU: multiplied two matrices")
    assert found.checks["OpenVINO GPU"].found == "found, but: no kernel"

    server.answers["openvino"] = openvino(CPU="FP32 BF16", NPU="FP16")
    server.backends = dict.fromkeys(
        ("cpu", "openvino", "openvino-bf16"), Answer(facts={"runs": True})
    )
    server.backends["openvino-npu"] = Answer(facts={"refused": "fixed shapes", "exit_code": 4})
    steps = []
    bar = SimpleNamespace(total=None, update=lambda *_: steps.append(len(server.asked)))
    asked = len(server.asked)
    tried = examine(make_bundle(), root=server.root, inquire=server.inquire, progress=bar)
    assert tried.backends == ("cpu", "openvino", "openvino-bf16")
    assert (bar.total, [n - asked for n in steps]) == (8, [*range(1, 9)])


def test_an_openvino_that_crashes_or_does_not_load(server):
    facts = {"version": "2026.4.1", "devices": {}, "stage": "a product on GPU"}
    server.answers["openvino"] = Answer(facts=facts, ended="the process ended with SIGSEGV")
    check = server.examine().checks["OpenVINO"]
    assert check.state == "warning"
    assert check.found.endswith("but: the process ended with SIGSEGV, while a product on GPU")
    facts = {"missing": "libopenvino.so is missing", "installed": True}
    server.answers["openvino"] = Answer(facts=facts)
    found = server.examine()
    check = found.checks["OpenVINO"]
    assert (check.state, check.fix) == ("missing", "pip install --force-reinstall openvino")
    assert found.backends == ("cpu",)


def test_what_is_not_a_bundle_is_an_error(server, tmp_path):
    with pytest.raises(BundleError, match="not a bundle"):
        server.examine(tmp_path)


def test_the_disk_is_that_of_the_engines(server, make_bundle, tmp_path, monkeypatch):
    bundle = make_bundle()
    server.backends = {"cpu": Answer(facts={"runs": True})}
    assert str(bundle) in server.examine(bundle).checks["disk"].found
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("VPTKIT_CACHE", str(tmp_path / "cache"))
    for path in (bundle, None):
        assert server.examine(path).checks["disk"].found.endswith(str(tmp_path / "cache"))
    monkeypatch.setenv("VPTKIT_CACHE", str(tmp_path / "cache/not/yet"))
    assert server.examine().checks["disk"].found.endswith(str(tmp_path / "cache"))


def test_every_question_is_a_step(server, make_bundle):
    server.backends = {"cpu": Answer(facts={"runs": True})}
    steps = []
    bar = SimpleNamespace(total=None, update=lambda *_: steps.append(len(server.asked)))
    examine(make_bundle(), root=server.root, inquire=server.inquire, progress=bar)
    assert steps == [1, 2, 3, 4, 5]
    assert bar.total == 5


def test_this_machine(make_bundle):
    """For real: whatever is here, the processor runs the bundle."""
    bundle = make_bundle()
    found = examine(bundle)
    assert "cpu" in found.backends
    assert open_bundle(bundle).path == bundle


def test_a_gpu_that_went_away_names_no_engine(orin, make_bundle, monkeypatch):
    def probe():
        raise MissingError("gone")

    monkeypatch.setattr(diagnosis, "probe", probe)
    orin.answers["tensorrt"] = TRT
    orin.backends = dict.fromkeys(AUTO_ORDER, Answer(facts={"runs": True}))
    assert "TensorRT engine" not in orin.examine(make_bundle()).checks


@pytest.mark.slow
@pytest.mark.parametrize("fake_gpu", [ORIN], indirect=True)
def test_an_engine_is_missed_built_and_run(fake_gpu, make_bundle):
    """With real children, on the fakes of a GPU and of TensorRT."""
    bundle = make_bundle()
    before = {check.name: check for check in examine(bundle).checks}
    assert before["GPU"].state == "ok"
    assert before["TensorRT"].found.endswith("a runtime starts")
    assert before["TensorRT engine"].fix == f"vptkit build {bundle}"
    assert f"vptkit build {bundle}" in before["backend tensorrt"].found

    build_engine(open_bundle(bundle), BuildOptions(library="tensorrt", batch=(1, 2, 8)))
    found = examine(bundle)
    after = {check.name: check for check in found.checks}
    assert after["TensorRT engine"].state == "ok"
    assert [name for name in found.backends if "openvino" not in name] == ["tensorrt", "cpu"]
