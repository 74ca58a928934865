from __future__ import annotations

import json

import pytest

from vptkit.devices.power.nvpmodel import Output
from vptkit.devices.power.operating_state import compare_states, read_operating_state


def state(**changes):
    return {
        "power_mode": {"id": 1, "name": "25W"},
        "clocks": {"gpu": clock()},
        "temperatures": {},
        "throttling": {"active": [], "counters": {"oc1": 0, "oc3": 37}},
        "gpu": None,
        "jetson_clocks": None,
        "load": 0.5,
        **changes,
    }


def clock(**changes):
    start = {"mhz": 306.0, "min_mhz": 306.0, "max_mhz": 918.0, "pinned": False}
    return {**start, "governor": "nvhost_podgov", **changes}


def test_this_machine():
    found = read_operating_state()
    assert set(found) == set(state())
    assert found["load"] >= 0
    json.dumps(found, allow_nan=False)


def test_the_power_mode_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr("vptkit.devices.power.operating_state.has_nvpmodel", lambda: True)

    def run(text):
        return read_operating_state(tmp_path, run=lambda _: Output(code=0, text=text))["power_mode"]

    assert run("NV Power Mode: 15W\n0\n") == {"id": 0, "name": "15W"}
    assert run("NVPM ERROR: in a container\n") is None


def test_nothing_happened():
    moving = state(clocks={"gpu": clock(mhz=918.0)}, load=3.0)
    assert compare_states(state(), moving) == ([], [])


@pytest.mark.parametrize(
    ("after", "text"),
    [
        (
            {"throttling": {"active": ["cpu-throttle-alert"], "counters": {}}},
            "cpu-throttle-alert was on",
        ),
        (
            {"throttling": {"active": [], "counters": {"oc1": 0, "oc3": 40, "oc2": 9}}},
            "oc3: 3 events",
        ),
        ({"gpu": {"throttling": ["power cap"], "held_back_ns": {}}}, "GPU: power cap"),
    ],
)
def test_signs_of_throttling(after, text):
    assert compare_states(state(), state(**after)) == ([text], [])


@pytest.mark.parametrize(
    ("nanoseconds", "found"), [(5_000_000, ["GPU: held back 5 ms (thermal)"]), (900_000, [])]
)
def test_time_that_a_gpu_was_held_back(nanoseconds, found):
    def gpu(time):
        return state(gpu={"throttling": None, "held_back_ns": {"thermal": time, "power": 8}})

    assert compare_states(gpu(1000), gpu(1000 + nanoseconds)) == (found, [])


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ({}, {"power_mode": {"id": 0, "name": "15W"}}, "power mode: 25W, then 15W"),
        ({}, {"power_mode": None}, "power mode: 25W, then None"),
        (
            {},
            {"clocks": {"gpu": clock(max_mhz=612.0)}},
            "gpu: 306 to 918 MHz nvhost_podgov, then 306 to 612 MHz nvhost_podgov",
        ),
        (
            {"clocks": {"gpu": clock(pinned=True, mhz=918.0, min_mhz=918.0)}},
            {"clocks": {"gpu": clock(pinned=True, mhz=612.0, min_mhz=918.0)}},
            "gpu: pinned at 918 MHz, then 612 MHz",
        ),
    ],
)
def test_changes(before, after, text):
    assert compare_states(state(**before), state(**after)) == ([], [text])


def test_a_pinned_gpu_that_was_switched_off_is_no_change():
    states = [
        state(clocks={"gpu": clock(pinned=True, mhz=mhz, min_mhz=918.0)}) for mhz in (0.0, 918.0)
    ]
    assert compare_states(*states) == ([], [])
