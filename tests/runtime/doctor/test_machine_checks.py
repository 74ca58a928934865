from __future__ import annotations

import importlib.metadata
import shutil
from types import SimpleNamespace

import pytest

from tests.support.device_trees import plant
from vptkit.devices.probes.jetson import detect_jetson
from vptkit.devices.probes.machine import detect_machine
from vptkit.runtime.doctor import machine_checks as health
from vptkit.runtime.doctor.machine_checks import machine_checks, package_checks

GPU = {
    "name": "Orin",
    "capability": "8.7",
    "memory_bytes": 8 << 30,
    "integrated": True,
    "driver": "12.6",
}
CPU0 = "sys__devices__system__cpu__cpufreq__policy0__scaling_{}_freq"


def checks(root, gpu=None, folder=None) -> dict:
    machine = detect_machine(root) | {"gpu": gpu}
    found = machine_checks(machine, detect_jetson(root), root, folder or root)
    return {check.name: check for check in found}


def test_a_jetson_that_could_be_faster(tmp_path):
    clocks = {CPU0.format("min"): "729600", CPU0.format("max"): "1344000"}
    found = checks(plant("orin-nano-jp62", tmp_path, **clocks), GPU)
    assert (found["board"].state, found["JetPack"].found) == ("ok", "6.2.1 (L4T 36.4.4)")
    assert "p3767-0003" in found["board"].found
    assert found["GPU"].found == "Orin, compute capability 8.7, 8.0 GiB"
    assert found["CUDA"].found == "12.6 by the driver, no toolkit (none is needed)"
    mode = found["power mode"]
    assert (mode.state, mode.found) == ("warning", "25W; the fastest is MAXN_SUPER")
    assert mode.fix == "sudo nvpmodel -m 2"
    assert (found["clocks"].state, found["clocks"].fix[:18]) == ("warning", "sudo jetson_clocks")


def test_a_jetson_at_its_fastest(tmp_path):
    clocks = {CPU0.format("min"): "1984000", CPU0.format("max"): "1984000"}
    status = {"var__lib__nvpmodel__status": "pmode:0002"}
    found = checks(plant("orin-nano-jp62", tmp_path, **clocks, **status), GPU)
    assert (found["power mode"].state, found["power mode"].fix) == ("ok", None)
    assert (found["clocks"].state, found["clocks"].found) == ("ok", "pinned: cpu")


def test_a_container_on_a_jetson_knows_what_it_does_not_know(tmp_path):
    found = checks(plant("container-jp6", tmp_path))
    for name in ("board", "JetPack", "power mode", "clocks", "memory"):
        assert found[name].state == "unknown", name
    assert "in a container, mount it" in found["board"].found
    assert "nvidia-l4t" in found["GPU"].fix


@pytest.mark.parametrize(
    ("tree", "fix"), [("agx-orin-jp5", "flash JetPack 6.0 or newer"), ("xavier-nx-jp5", None)]
)
def test_a_jetpack_whose_tensorrt_no_vptkit_can_load(tree, fix, tmp_path):
    found = checks(plant(tree, tmp_path), GPU)["JetPack"]
    assert (found.state, found.fix) == ("warning", fix)
    assert "its TensorRT is for its Python 3.8, and vptkit needs 3.10" in found.found
    assert ("None is for this module" in found.found) == (fix is None)


def test_a_server_has_no_power_modes(tmp_path):
    found = checks(plant("server-x86", tmp_path))
    assert {"JetPack", "power mode", "clocks", "CUDA"} & set(found) == set()
    assert found["board"].found.startswith("AMD EPYC 7R13 Processor")


def test_a_machine_without_a_gpu_needs_no_driver(tmp_path):
    found = checks(plant("server-x86", tmp_path))["GPU"]
    assert (found.state, found.fix) == ("ok", None)
    assert "none of NVIDIA's" in found.found


@pytest.mark.parametrize(
    ("vendor", "kind", "fix"),
    [
        ("0x10de", "0x030200", "ubuntu-drivers"),
        ("0x10de", "0x020000", None),  # a network card of NVIDIA's
        ("0x1002", "0x030000", None),
    ],
)
def test_a_card_without_a_driver(tmp_path, vendor, kind, fix):
    card = {
        "sys__bus__pci__devices__0000:01:00.0__vendor": vendor,
        "sys__bus__pci__devices__0000:01:00.0__class": kind,
    }
    found = checks(plant("server-x86", tmp_path, **card))["GPU"]
    assert found.state == ("ok" if fix is None else "missing")
    assert found.fix is None if fix is None else fix in found.fix


def test_a_container_on_a_jetson_is_started_with_the_gpu(tmp_path):
    (tmp_path / ".dockerenv").touch()
    assert "docker run --runtime nvidia" in checks(plant("orin-nano-jp62", tmp_path))["GPU"].fix


def test_a_device_without_a_library_is_a_containers(tmp_path):
    found = checks(plant("server-x86", tmp_path, dev__nvidia0=""))["GPU"]
    assert "docker run --runtime nvidia --gpus all" in found.fix


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5", "550.54.15"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.00  Release Build",
            "580.00",
        ),
    ],
)
def test_the_versions_of_driver_and_toolkit(tmp_path, line, version):
    json = '{"cuda" : {"name" : "CUDA SDK", "version" : "12.6.20240801"}, "x": {"version": "1"}}'
    root = plant(
        "server-x86",
        tmp_path,
        proc__driver__nvidia__version=line,
        **{"usr__local__cuda__version.json": json},
    )
    found = checks(root, GPU)
    assert found["GPU"].found.endswith(f"driver {version}")
    assert found["CUDA"].found.endswith("toolkit 12.6.20240801")


@pytest.mark.parametrize(
    ("tree", "fix"), [("orin-nano-jp62", "multi-user.target"), ("server-x86", "end other")]
)
def test_little_memory(tree, fix, tmp_path):
    memory = "MemTotal:  7802588 kB\nMemAvailable:  {} kB\nSwapFree: 2048000 kB\n"
    few, many = (memory.format(mb * 1024) for mb in (1499, 1500))
    found = checks(plant(tree, tmp_path, proc__meminfo=few))["memory"]
    assert found.state == "warning"
    assert "1499 of 7620 MB free, 2000 MB of swap free" in found.found
    assert fix in found.fix
    assert checks(plant(tree, tmp_path, proc__meminfo=many))["memory"].state == "ok"


def test_a_containers_memory_is_what_its_limit_leaves(tmp_path):
    limits = {"memory.max": str(4 << 30), "memory.current": str(3 << 30)}
    files = {f"sys__fs__cgroup__{name}": text for name, text in limits.items()}
    found = checks(plant("orin-nano-jp62", tmp_path, **files))["memory"]
    assert found.found.startswith("1024 of 4096 MB free")


def test_a_container_without_a_limit_has_the_memory_that_is_available(tmp_path):
    """What it uses counts the page cache too, which gives way."""
    memory = "MemTotal: 8192000 kB\nMemAvailable: 6144000 kB\n"
    limits = {"memory.max": "max", "memory.current": str(6 << 30)}
    files = {f"sys__fs__cgroup__{name}": text for name, text in limits.items()}
    found = checks(plant("orin-nano-jp62", tmp_path, proc__meminfo=memory, **files))["memory"]
    assert found.found.startswith("6000 of 8000 MB free")


@pytest.mark.parametrize(("free", "state"), [((2 << 30) - 1, "warning"), (2 << 30, "ok")])
def test_a_disk_that_is_almost_full(tmp_path, monkeypatch, free, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    found = checks(plant("server-x86", tmp_path))["disk"]
    assert found.state == state
    assert ("VPTKIT_CACHE" in (found.fix or "")) == (state == "warning")


def test_a_disk_that_is_not_there(tmp_path):
    found = checks(plant("server-x86", tmp_path), folder=tmp_path / "nowhere")["disk"]
    assert found.state == "unknown"


@pytest.fixture
def installed(monkeypatch):
    """A function that says which packages are installed."""

    def install(*names: str) -> dict:
        monkeypatch.setattr(health, "_version", lambda name: "1.0" if name in names else None)
        return {check.name: check for check in package_checks()}

    return install


def test_every_extra_is_looked_at(installed):
    found = installed()
    extras = set(importlib.metadata.metadata("vptkit").get_all("Provides-Extra"))
    assert set(found) == {
        f"extra {e}" for e in extras - {"all", "test", "cpu", "openvino", "trt-rtx"}
    }
    assert {check.state for check in found.values()} == {"missing"}
    assert found["extra tune"].found == "no torch, torchvision, timm; only for vptkit tune"
    assert found["extra tune"].fix == 'pip install "vptkit[tune]"'


def test_an_extra_needs_all_of_its_packages(installed):
    assert installed("torch", "timm")["extra tune"].found.startswith("no torchvision;")
    found = installed("torch", "torchvision", "timm")["extra tune"]
    assert (found.state, found.fix) == ("ok", None)


def test_onnx_runtime_twice(installed):
    assert "onnxruntime twice" not in installed("onnxruntime-gpu")
    twice = installed("onnxruntime-gpu", "onnxruntime")["onnxruntime twice"]
    assert (twice.state, twice.fix[:16]) == ("warning", "pip uninstall -y")


def test_this_python_has_what_the_tests_need():
    assert {check.name: check.state for check in package_checks()}["extra export"] == "ok"


def test_a_jetpack_that_is_not_in_the_table(tmp_path):
    release = {"etc__nv_tegra_release": "# R35 (release), REVISION: 1.0, GCID: 1, BOARD: t186ref"}
    found = checks(plant("agx-orin-jp5", tmp_path, **release), GPU)["JetPack"]
    assert (found.state, found.found) == (
        "unknown",
        "5.0.2 (L4T 35.1.0): what it brings is not known here",
    )


def test_run_from_a_folder_without_being_installed(monkeypatch):
    """As on a board that `profile --on` copied the code to; it was a traceback."""

    def requires(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    (first, *_) = package_checks()
    assert (first.name, first.state) == ("extras", "unknown")
    assert "not installed" in first.found
