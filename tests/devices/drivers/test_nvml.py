from __future__ import annotations

import inspect
import re
import sys
from types import SimpleNamespace

import pytest

from vptkit.devices.drivers import nvml
from vptkit.devices.drivers.nvml import open_nvml
from vptkit.errors import MissingError, MissingExtraError


class NVMLError(Exception):
    pass


class FakeNvml:
    """pynvml with one H200; `lacks` are calls that answer NOT_SUPPORTED, `absent` are not there."""

    NVMLError = NVMLError

    def __init__(self, lacks=(), absent=()):
        self.lacks, self.opened = lacks, []
        for name in absent:
            setattr(self, name, None)

    def nvmlInit(self):  # noqa: N802
        if "nvmlInit" in self.lacks:
            raise NVMLError("Driver Not Loaded")

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        self.opened.append(index)
        return "handle"

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        self.opened.append(uuid)
        return "handle"

    def __getattr__(self, name):
        answers = {
            "nvmlDeviceGetName": lambda: b"NVIDIA H200",
            "nvmlDeviceGetClockInfo": lambda kind: {1: 1980, 2: 3201}[kind],
            "nvmlDeviceGetMaxClockInfo": lambda kind: {1: 1980, 2: 3201}[kind],
            "nvmlDeviceGetTemperature": lambda sensor: 41,
            "nvmlDeviceGetPowerUsage": lambda: 123_456,
            "nvmlDeviceGetEnforcedPowerLimit": lambda: 700_000,
            "nvmlDeviceGetTotalEnergyConsumption": lambda: 5_000,
            "nvmlDeviceGetCurrentClocksEventReasons": lambda: 0x1 | 0x4 | 0x40,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda: 0x20,
            "nvmlDeviceGetViolationStatus": lambda policy: SimpleNamespace(
                violationTime=1000 * policy
            ),
        }
        if name not in answers:
            raise AttributeError(name)

        def call(handle, *arguments):
            assert handle == "handle"
            if name in self.lacks:
                raise NVMLError("Not Supported")
            return answers[name](*arguments)

        return call


def test_what_a_server_tells():
    gpu = open_nvml(library=FakeNvml())
    assert gpu.read() == {
        "name": "NVIDIA H200",
        "clocks": {
            "sm": {"mhz": 1980, "max_mhz": 1980},
            "memory": {"mhz": 3201, "max_mhz": 3201},
        },
        "temperature": 41,
        "watts": 123.456,
        "limit_watts": 700.0,
        "throttling": ["power cap", "thermal slowdown (hardware)"],
        "held_back_ns": {"power": 0, "thermal": 1000, "board limit": 3000, "reliability": 5000},
    }
    assert gpu.joules() == 5.0


def test_what_a_jetson_does_not_tell():
    """Each call on its own: one that is not supported takes nothing else away."""
    lacks = {
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlDeviceGetViolationStatus",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
    }
    gpu = open_nvml(library=FakeNvml(lacks))
    found = gpu.read()
    assert found["clocks"]["sm"] == {"mhz": None, "max_mhz": 1980}
    assert (found["watts"], found["throttling"], found["held_back_ns"]) == (None, None, {})
    assert (gpu.joules(), found["temperature"]) == (None, 41)


@pytest.mark.parametrize("how", ["lacks", "absent"])
def test_older_libraries_name_the_reasons_otherwise(how):
    library = FakeNvml(**{how: ["nvmlDeviceGetCurrentClocksEventReasons"]})
    assert open_nvml(library=library).read()["throttling"] == ["thermal slowdown (software)"]


@pytest.mark.parametrize(
    ("visible", "index", "opened"),
    [
        (None, 1, 1),
        ("", 1, 1),
        ("3,2", 1, 2),
        ("GPU-5f1c,MIG-2", 0, "GPU-5f1c"),
    ],
)
def test_which_gpu_cuda_means(monkeypatch, visible, index, opened):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    library = FakeNvml()
    open_nvml(index, library)
    assert library.opened == [opened]


def test_without_driver_or_package(monkeypatch):
    with pytest.raises(MissingError, match="NVML does not answer: Driver Not Loaded"):
        open_nvml(library=FakeNvml({"nvmlInit"}))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MissingExtraError, match=r"vptkit\[gpu\]"):
        open_nvml()


def test_the_real_package_has_these_names():
    pynvml = pytest.importorskip("pynvml")
    for name in re.findall(r"nvmlDevice\w+|nvmlInit", inspect.getsource(nvml)):
        wanted = (name,) if not name.endswith("Clocks") else (f"{name}EventReasons",)
        assert all(callable(getattr(pynvml, n)) for n in wanted), name
    assert (pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM, pynvml.NVML_TEMPERATURE_GPU) == (1, 2, 0)
    policies = (pynvml.NVML_PERF_POLICY_POWER, pynvml.NVML_PERF_POLICY_THERMAL)
    assert policies == (0, 1)
    assert pynvml.nvmlClocksEventReasonSwPowerCap == 0x4
    assert pynvml.nvmlClocksEventReasonHwThermalSlowdown == 0x40
