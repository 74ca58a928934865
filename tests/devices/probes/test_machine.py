from __future__ import annotations

import json
import os
import platform
from typing import TYPE_CHECKING

import pytest

from tests.support.device_trees import TREES, plant
from vptkit.devices.drivers import cuda
from vptkit.devices.drivers.cuda import Gpu
from vptkit.devices.probes.machine import cpu_features, detect_machine, usable_cores, visible_gpu
from vptkit.errors import MissingError

if TYPE_CHECKING:
    from pathlib import Path

CORTEX = """processor\t: {i}
BogoMIPS\t: 62.50
CPU implementer\t: {implementer}
CPU architecture: 8
CPU part\t: {part}

"""


@pytest.fixture
def machine(tmp_path: Path):
    """A function that writes files of a made-up /proc, /sys and /etc."""

    def write(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


@pytest.fixture
def four_threads(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)


def test_this_machine():
    found = detect_machine()
    assert found["cores"] >= 1
    assert found["threads"] >= found["cores"]
    assert found["memory_mb"] > 100
    assert set(found) == {
        *("cpu", "cpu_features", "board", "arch", "cores", "threads", "memory_mb"),
        *("governor", "frequency_mhz", "os", "kernel", "python"),
        *("jetson", "gpu", "notes", "device"),
    }
    json.dumps(found)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu avx2 amx_bf16 avx512_vnni amx_tile_not avx512_bf16", ["avx2", "avx512_vnni", "avx512_bf16", "amx_bf16"]),
        ("Features\t: fp asimd asimddp i8mm bf16", ["asimddp", "i8mm", "bf16"]),
        ("flags : fpu", []),
        ("processor : 0", None),
    ],
)  # fmt: skip
def test_what_a_processor_multiplies_fast(machine, line, expected):
    root = machine(proc__cpuinfo=f"processor : 0\n{line}\n\nprocessor : 1\n{line}\n")
    assert cpu_features(root) == expected
    assert detect_machine(root)["cpu_features"] == expected


def test_an_x86_model(machine):
    root = machine(proc__cpuinfo="processor : 0\nmodel name\t: AMD EPYC 7R13\n" * 2)
    assert detect_machine(root)["cpu"] == "AMD EPYC 7R13"


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        ([("0x41", "0xd42")] * 6, "6 x Cortex-A78AE"),
        ([("0x41", "0xd03")] * 4 + [("0x41", "0xd08")] * 2, "4 x Cortex-A53 + 2 x Cortex-A72"),
        ([("0x4e", "0x004")] * 2, "2 x Carmel"),
        ([("0x61", "0x022")], "1 x Arm 0x61/0x22"),
    ],
)
def test_arm_cores_are_named_by_their_numbers(machine, cores, expected):
    text = "".join(CORTEX.format(i=i, implementer=a, part=b) for i, (a, b) in enumerate(cores))
    assert detect_machine(machine(proc__cpuinfo=text))["cpu"] == expected


def test_a_jetson(machine):
    root = machine(
        **{
            "proc__device-tree__model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "proc__meminfo": "MemTotal:        7802584 kB\nMemFree: 1 kB\n",
            "sys__devices__system__cpu__cpu0__cpufreq__scaling_governor": "schedutil\n",
            "sys__devices__system__cpu__cpu0__cpufreq__scaling_max_freq": "1510400\n",
            "etc__os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
        }
    )
    found = detect_machine(root)
    assert found["board"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert found["memory_mb"] == 7620
    assert (found["governor"], found["frequency_mhz"]) == ("schedutil", 1510)
    assert found["os"] == "Ubuntu 22.04.5 LTS"


def test_what_cannot_be_read_is_none(tmp_path):
    found = detect_machine(tmp_path)
    for name in ("cpu", "board", "memory_mb", "governor", "frequency_mhz"):
        assert found[name] is None


def test_hardware_threads_of_one_core_count_once(machine, four_threads):
    siblings = {
        f"sys__devices__system__cpu__cpu{i}__topology__thread_siblings_list": f"{i % 2},{i % 2 + 2}"
        for i in range(4)
    }
    assert usable_cores(machine(**siblings)) == 2


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 4), ("200000 100000", 2), ("50000 100000", 1), ("900000 100000", 4)],
)
def test_a_containers_quota_caps_the_cores(machine, four_threads, quota, cores):
    assert usable_cores(machine(**{"sys__fs__cgroup__cpu.max": quota})) == cores


def test_a_containers_memory_limit_counts(machine):
    memory = {"proc__meminfo": "MemTotal: 8388608 kB\n"}
    limit = "sys__fs__cgroup__memory.max"
    assert detect_machine(machine(**memory, **{limit: "2147483648\n"}))["memory_mb"] == 2048
    assert detect_machine(machine(**memory, **{limit: "max\n"}))["memory_mb"] == 8192


@pytest.mark.parametrize(
    ("tree", "arch", "device"),
    [
        ("orin-nano-jp62", "aarch64", "orin-nano-8gb"),
        ("orin-nano-carrier-jp6", "aarch64", "orin-nano-8gb"),
        ("agx-orin-jp6", "aarch64", "agx-orin-64gb"),
        ("agx-orin-jp5", "aarch64", "agx-orin-devkit-32gb"),
        ("xavier-nx-jp5", "aarch64", "xavier-nx-8gb"),
        ("thor-jp7", "aarch64", "thor-t5000"),
        ("container-jp6", "aarch64", None),
        ("raspberry-pi", "aarch64", None),
        ("server-x86", "x86_64", "x86-cpu"),
    ],
)
def test_the_board_is_known_by_its_key(tree, arch, device, tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: arch)
    found = detect_machine(plant(tree, tmp_path))
    assert found["device"] == device


@pytest.mark.parametrize("tree", TREES)
def test_every_tree_makes_a_document(tree, tmp_path):
    found = detect_machine(plant(tree, tmp_path))
    json.dumps(found)
    assert (found["jetson"] is None) == (tree in ("server-x86", "raspberry-pi"))
    assert found["gpu"] is None  # the driver would answer for the machine that tests


def test_a_jetsons_facts_are_part_of_the_machine(tmp_path):
    found = detect_machine(plant("container-jp6", tmp_path))
    assert found["jetson"]["soc"] is None
    assert found["notes"] == found["jetson"]["notes"]


def test_the_gpu_that_the_driver_names(monkeypatch):
    gpu = Gpu(
        index=0,
        name="NVIDIA H200",
        capability=(9, 0),
        memory_bytes=150_000_000_000,
        integrated=False,
        sms=132,
        clock_mhz=1980,
        driver=(12, 8),
    )
    monkeypatch.setattr(cuda, "probe", lambda: gpu)
    found = detect_machine()
    assert (found["gpu"]["name"], found["device"]) == ("NVIDIA H200", "h200")


def test_why_there_is_no_gpu_is_noted(monkeypatch):
    def probe():
        raise MissingError("no driver library")

    monkeypatch.setattr(cuda, "probe", probe)
    found = detect_machine()
    assert found["gpu"] is None
    assert "gpu: no driver library" in found["notes"]


def test_a_gpu_is_seen_without_its_driver(machine, tmp_path):
    assert visible_gpu(machine(), {}) is None
    jetson = plant("orin-nano-jp62", tmp_path / "jetson")
    assert "Jetson" in visible_gpu(jetson, {})
    root = machine(dev__nvidiactl="", dev__nvidia0="")
    assert visible_gpu(root, {}) == "/dev/nvidia0"
    assert visible_gpu(root, {"CUDA_VISIBLE_DEVICES": "0"}) == "/dev/nvidia0"
    for hidden in ("", "-1"):
        assert visible_gpu(root, {"CUDA_VISIBLE_DEVICES": hidden}) is None
