from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vptkit.devices.power.meters import NvmlMeter, RailMeter, RaplMeter, find_meter
from vptkit.errors import MissingError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path):
    """A function that writes files below a root."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        return tmp_path

    return write


def ina3221(number: int, **rails: tuple[int, int]) -> dict[str, str]:
    """An INA3221 of up to three channels: label → (millivolts, milliamperes)."""
    folder = f"sys/class/hwmon/hwmon{number}"
    files = {f"{folder}/name": "ina3221", f"{folder}/in7_label": "sum of shunt voltages"}
    for n, (label, (volts, amperes)) in enumerate(rails.items(), 1):
        files |= {
            f"{folder}/in{n}_label": label,
            f"{folder}/in{n}_input": str(volts),
            f"{folder}/curr{n}_input": str(amperes),
        }
    return files


ORIN_NANO = ina3221(1, VDD_IN=(4984, 1856), VDD_CPU_GPU_CV=(4976, 400), VDD_SOC=(4976, 600))
AGX_ORIN = ina3221(2, VDD_GPU_SOC=(12000, 200), VDD_CPU_CV=(12000, 100), VIN_SYS_5V0=(5000, 900))
AGX_ORIN |= ina3221(3, NC=(0, 0), VDDQ_VDD2_1V8AO=(5000, 120))


def test_rails_of_an_orin_nano(tree):
    meter = find_meter("gpu", tree(ORIN_NANO))
    assert (meter.source, meter.counts, meter.total) == ("INA3221", "watts", ("VDD_IN",))
    assert meter.read() == pytest.approx(
        {"VDD_IN": 9.250304, "VDD_CPU_GPU_CV": 1.9904, "VDD_SOC": 2.9856}
    )


def test_an_agx_orin_has_no_input_rail(tree):
    meter = find_meter("cpu", tree(AGX_ORIN))
    assert set(meter.read()) == {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}
    assert meter.total == ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")


def test_a_thor_has_its_input_on_another_chip(tree):
    rails = ina3221(1, VDD_GPU=(5000, -20), VDD_CPU_SOC_MSS=(5000, 800), VIN_SYS_5V0=(5000, 400))
    folder = "sys/class/hwmon/hwmon2"
    rails |= {
        f"{folder}/name": "ina238",
        f"{folder}/in1_input": "19000",
        f"{folder}/curr1_input": "1500",
        f"{folder}/power1_input": "28900000",
    }
    meter = find_meter("gpu", tree(rails))
    assert (meter.source, meter.total) == ("INA238 and INA3221", ("VIN",))
    assert meter.read()["VIN"] == pytest.approx(28.9)
    assert meter.read()["VDD_GPU"] == pytest.approx(-0.1)


def test_rails_nobody_knows_are_added_up(tree):
    assert find_meter("gpu", tree(ina3221(0, A=(1, 1), B=(1, 1)))).total == ("A", "B")


def test_rails_on_the_bus_count_once(tree, tmp_path):
    """Older kernels: the I2C device has the name, and /sys/class/hwmon links into it."""
    device = "sys/bus/i2c/devices/1-0040"
    files = {
        path.replace("sys/class/hwmon/hwmon1", f"{device}/hwmon/hwmon1"): text
        for path, text in ORIN_NANO.items()
        if not path.endswith("/name")
    }
    root = tree(files | {f"{device}/name": "ina3221x"})
    (root / "sys/class/hwmon").mkdir(parents=True)
    (root / "sys/class/hwmon/hwmon1").symlink_to(root / device / "hwmon/hwmon1")
    assert set(RailMeter.find(root).read()) == {"VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"}


def test_a_rail_that_stops_answering_is_missing(tree):
    root = tree(ORIN_NANO)
    meter = find_meter("gpu", root)
    (root / "sys/class/hwmon/hwmon1/curr1_input").unlink()
    assert set(meter.read()) == {"VDD_CPU_GPU_CV", "VDD_SOC"}


def rapl(zones: dict[str, tuple[str, int]]) -> dict[str, str]:
    files = {}
    for zone, (name, energy) in zones.items():
        folder = f"sys/class/powercap/{zone}"
        files |= {
            f"{folder}/name": name,
            f"{folder}/energy_uj": str(energy),
            f"{folder}/max_energy_range_uj": "1000000000",
        }
    return files


SERVER = {
    "intel-rapl:0": ("package-0", 999_000_000),
    "intel-rapl:0:0": ("core", 5),
    "intel-rapl:0:1": ("dram", 7_000_000),
    "intel-rapl:1": ("package-1", 100),
    "intel-rapl:1:1": ("dram", 0),
}


def test_counters_of_a_processor_wrap_around(tree):
    root = tree(rapl(SERVER))
    meter = find_meter("cpu", root)
    assert (meter.source, meter.counts) == ("RAPL", "joules")
    assert meter.total == ("package-0", "dram-0", "package-1", "dram-1")
    assert set(meter.read().values()) == {0.0}
    (root / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("3000000")
    (root / "sys/class/powercap/intel-rapl:0:1/energy_uj").write_text("9000000")
    found = meter.read()
    assert (found["package-0"], found["dram-0"], found["package-1"]) == (4.0, 2.0, 0.0)


def test_counters_that_are_roots(tree, monkeypatch):
    root = tree(rapl({"intel-rapl:0": ("package-0", 1)}))
    (root / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("")  # unreadable, to anyone
    with pytest.raises(MissingError, match=r"root's to read \(use sudo\)"):
        RaplMeter.find(root)


def test_a_processor_without_counters(tmp_path):
    with pytest.raises(MissingError, match="no RAPL"):
        find_meter("cpu", tmp_path)


class FakeNvml:
    def __init__(self, joules, watts):
        self._joules, self._watts = joules, watts

    def joules(self):
        return self._joules

    def watts(self):
        return self._watts


@pytest.mark.parametrize(
    ("joules", "watts", "counts", "value"),
    [(5.0, 90.0, "joules", 5.0), (None, 90.0, "watts", 90.0)],
)
def test_a_gpu_in_a_server(tmp_path, joules, watts, counts, value):
    meter = find_meter("gpu", tmp_path, FakeNvml(joules, watts))
    assert isinstance(meter, NvmlMeter)
    assert (meter.counts, meter.total, meter.read()) == (counts, ("gpu",), {"gpu": value})


@pytest.mark.parametrize("nvml", [None, FakeNvml(None, None)])
def test_a_gpu_that_tells_nothing(tmp_path, nvml):
    with pytest.raises(MissingError, match="NVML tells neither energy nor power"):
        find_meter("gpu", tmp_path, nvml)
