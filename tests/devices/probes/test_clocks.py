from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from vptkit.devices.drivers.sysfs import read_text
from vptkit.devices.probes.clocks import read_clocks, read_temperatures, read_throttling

if TYPE_CHECKING:
    from pathlib import Path

CPU = "sys/devices/system/cpu"
# An Orin Nano with JetPack 6.2 as public reports show it: two clusters, one GPU, EMC in debugfs.
ORIN = {
    **{f"{CPU}/cpufreq/policy0/scaling_{k}_freq": v for k, v in
       (("cur", "1267200"), ("min", "729600"), ("max", "1728000"))},
    **{f"{CPU}/cpufreq/policy4/scaling_{k}_freq": v for k, v in
       (("cur", "1728000"), ("min", "729600"), ("max", "1728000"))},
    f"{CPU}/cpufreq/policy0/scaling_governor": "schedutil\n",
    f"{CPU}/cpufreq/policy4/scaling_governor": "schedutil\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
    "sys/class/devfreq/17000000.gpu/governor": "nvhost_podgov\n",
    "sys/class/devfreq/8188050000.vic/cur_freq": "115200000\n",
    "sys/kernel/debug/bpmp/debug/clk/emc/rate": "2133000000\n",
    "sys/kernel/debug/bpmp/debug/clk/emc/min_rate": "204000000\n",
    "sys/kernel/debug/bpmp/debug/clk/emc/max_rate": "3199000000\n",
    "sys/kernel/debug/bpmp/debug/clk/emc/mrq_rate_locked": "0\n",
}  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path):
    """A function that writes files below a root."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_clocks_of_a_board(tree):
    free = {"pinned": False}
    assert read_clocks(tree(ORIN)) == {
        "cpu": {"mhz": 1728, "min_mhz": 729.6, "max_mhz": 1728, "governor": "schedutil", **free},
        "gpu": {"mhz": 306, "min_mhz": 306, "max_mhz": 1020, "governor": "nvhost_podgov", **free},
        "emc": {"mhz": 2133, "min_mhz": 204, "max_mhz": 3199, "governor": None, **free},
    }


def test_pinned_clocks(tree):
    pinned = {
        f"{CPU}/cpufreq/policy0/scaling_min_freq": "1728000",
        "sys/class/devfreq/17000000.gpu/min_freq": "1020000000",
        "sys/kernel/debug/bpmp/debug/clk/emc/mrq_rate_locked": "1",
    }
    found = read_clocks(tree(ORIN | pinned))
    assert {name: clock["pinned"] for name, clock in found.items()} == {
        "cpu0": True,
        "cpu4": False,
        "gpu": True,
        "emc": True,
    }


def test_a_cap_of_the_power_mode_bounds_the_memory(tree):
    root = tree(ORIN | {"sys/kernel/nvpmodel_clk_cap/emc": "2133000000"})
    assert read_clocks(root)["emc"]["max_mhz"] == 2133


def test_without_root_the_memory_has_its_cap_only(tree):
    emc = read_clocks(tree({"sys/kernel/nvpmodel_clk_cap/emc": "2133000000"}))["emc"]
    assert (emc["mhz"], emc["max_mhz"], emc["pinned"]) == (None, 2133, None)


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["sys/devices/platform/17000000.gpu/devfreq_dev"], ["gpu"]),
        (["sys/devices/17000000.ga10b/devfreq/17000000.ga10b"], ["gpu"]),
        (["sys/class/devfreq/gpu-gpc-0", "sys/class/devfreq/gpu-nvd-0"],
         ["gpu-gpc-0", "gpu-nvd-0"]),
        (["sys/class/devfreq/8188050000.vic"], []),
    ],
)  # fmt: skip
def test_where_the_gpu_is(tree, folders, names):
    root = tree({f"{folder}/cur_freq": "1000000000" for folder in folders})
    assert sorted(read_clocks(root)) == names


def test_a_machine_without_clocks(tmp_path):
    assert read_clocks(tmp_path) == {}


def zone(number: int, kind: str, value: str) -> dict[str, str]:
    folder = f"sys/class/thermal/thermal_zone{number}"
    return {f"{folder}/type": kind + "\n", f"{folder}/temp": value}


def test_temperatures(tree):
    root = tree(
        zone(0, "cpu-thermal", "49468\n")
        | zone(1, "gpu-thermal", "-256000\n")
        | zone(2, "cv0-thermal", "")
        | zone(8, "tj-thermal", "50531\n")
        | zone(9, "acpitz", "27800\n")
        | zone(10, "acpitz", "-5000\n")
    )
    assert read_temperatures(root) == {
        "cpu-thermal": 49.468,
        "tj-thermal": 50.531,
        "acpitz": 27.8,
        "acpitz 10": -5.0,
    }


def test_a_zone_that_answers_try_again(tree, monkeypatch):
    """EAGAIN: the read gives nothing, which Python's text layer reports as a TypeError."""
    root = tree(zone(0, "cpu-thermal", "49468") | zone(1, "gpu-thermal", "1"))
    real = os.fspath(root / "sys/class/thermal/thermal_zone1/temp")

    def read(path, **_):
        if os.fspath(path) == real:
            raise TypeError("can't concat NoneType to bytes")
        with path.open() as file:
            return file.read()

    monkeypatch.setattr("pathlib.Path.read_text", read)
    assert read_text(root / "sys/class/thermal/thermal_zone1/temp") is None
    assert read_temperatures(root) == {"cpu-thermal": 49.468}


def test_throttling_of_a_board(tree):
    def cooling(number, kind, state):
        folder = f"sys/class/thermal/cooling_device{number}"
        return {f"{folder}/type": kind, f"{folder}/cur_state": state}

    root = tree(
        cooling(0, "pwm-fan", "2")
        | cooling(1, "gpu-throttle-alert", "1")
        | cooling(2, "cpufreq-cpu0", "0")
        | cooling(3, "cpufreq-cpu4", "3")
        | {
            "sys/class/hwmon/hwmon3/oc1_event_cnt": "0",
            "sys/class/hwmon/hwmon3/oc3_event_cnt": "37",
            "sys/devices/platform/cpu-throttle-alert/thermal_trip_event": "2",
            "sys/class/hwmon/hwmon3/oc1_throt_en": "1",
        }
    )
    assert read_throttling(root) == {
        "active": ["cpufreq-cpu4", "gpu-throttle-alert"],
        "counters": {"oc1": 0, "oc3": 37, "cpu-throttle-alert": 2},
    }


def test_throttling_of_an_x86_machine(tree):
    files = {
        f"{CPU}/cpu{i}/thermal_throttle/{kind}_throttle_count": str(10 * i)
        for i in range(3)
        for kind in ("core", "package")
    }
    assert read_throttling(tree(files)) == {
        "active": [],
        "counters": {"core_throttle": 30, "package_throttle": 30},
    }
