"""What TensorRT and ONNX Runtime answered, judged; no library and no GPU is asked."""

from __future__ import annotations

import sys

import pytest

from vptkit.devices.probes.jetson import Jetson
from vptkit.runtime.doctor.library_checks import onnxruntime_checks, tensorrt_check
from vptkit.runtime.doctor.library_probe import Answer

ORIN = Jetson(
    model=None, part="p3767-0003", soc="tegra234", l4t="36.4.4", jetpack="6.2.1", power=None
)
GPU = {"capability": "9.0", "driver": "12.6"}


def judged(facts, tmp_path, *, ended=None, jetson=None, gpu=None, library="tensorrt"):
    answer = Answer(facts=facts, ended=ended)
    return tensorrt_check(library, answer, jetson=jetson, gpu=gpu, root=tmp_path)


def test_a_runtime_that_starts(tmp_path):
    check = judged({"version": "10.7.0"}, tmp_path, jetson=ORIN)
    assert check.state == "ok"
    assert check.found.startswith("10.7.0, a runtime starts (this JetPack brings ")
    assert judged({"version": "10.7.0"}, tmp_path).found == "10.7.0, a runtime starts"


@pytest.mark.parametrize(
    ("facts", "ended", "found"),
    [
        ({"version": "10.3.0", "stage": "loading"}, "SIGSEGV", "10.3.0 is there, but: SIGSEGV, wh"),
        ({"installed": True, "missing": "libnvinfer.so.10"}, None, "it does not load: libnvinfer"),
        ({"version": "10.3.0", "failed": "no runtime"}, None, "10.3.0 is there, but: no runtime"),
    ],
)
def test_a_broken_one_is_installed_again(tmp_path, facts, ended, found):
    check = judged(facts, tmp_path, ended=ended, gpu=GPU)
    assert (check.state, check.fix) == ("missing", "pip install --force-reinstall tensorrt-cu12")
    assert check.found.startswith(found)
    assert "apt install --reinstall" in judged(facts, tmp_path, ended=ended, jetson=ORIN).fix


def test_the_wheel_fits_the_cuda_of_the_driver(tmp_path):
    fixes = [judged({}, tmp_path, gpu={**GPU, "driver": d}).fix for d in ("12.6", "13.0")]
    assert fixes == ["pip install tensorrt-cu12", "pip install tensorrt"]


def test_one_that_another_python_has(tmp_path):
    """It is told how to see it, not to install it a second time."""
    other = f"python3.{sys.version_info.minor + 1}"
    (tmp_path / f"usr/lib/{other}/dist-packages/tensorrt").mkdir(parents=True)
    check = judged({}, tmp_path, jetson=ORIN)
    assert check.found == "not in this Python"
    assert f"/usr/bin/{other} -m venv --system-site-packages" in check.fix


def onnxruntime(facts, ended=None):
    return list(onnxruntime_checks(Answer(facts=facts, ended=ended), None))


def test_providers_that_are_listed_but_do_not_work():
    cpu, cuda, trt = (f"{n}ExecutionProvider" for n in ("CPU", "CUDA", "Tensorrt"))
    facts = {
        "version": "1.20",
        "providers": [cuda, cpu, trt],
        "usable": {cpu: None, cuda: "no GPU"},
    }
    whole, *rest = onnxruntime(facts)
    assert whole.found == "1.20, built with CUDA, CPU, Tensorrt"
    assert [(check.name, check.state, check.found) for check in rest] == [
        ("ONNX Runtime CPU", "ok", "multiplied two matrices"),
        ("ONNX Runtime CUDA", "missing", "listed, but: no GPU"),
        ("ONNX Runtime Tensorrt", "missing", "listed, but: it was not asked"),
    ]
    assert "onnxruntime-gpu" in rest[1].fix


def test_an_onnxruntime_that_does_not_load():
    """Two packages install the same files over each other: both go first."""
    (check,) = onnxruntime({"installed": True, "missing": "libonnxruntime.so"})
    assert check.found == "it does not load: libonnxruntime.so"
    assert check.fix.startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install")
    (check,) = onnxruntime({})
    assert (check.found, check.fix) == ("not in this Python", 'pip install "vptkit[cpu]"')
