from __future__ import annotations

import contextlib

import pytest

from tests.runtime.layers.test_layer_time import layer
from vptkit.devices.probes.machine import usable_cores
from vptkit.runtime.layers import machine_roof
from vptkit.runtime.layers.machine_roof import RoofMeter, why_no_roof
from vptkit.runtime.layers.operator_costs import Cost


@pytest.fixture
def meter(monkeypatch):
    monkeypatch.setattr(machine_roof, "_ROWS", 64)
    monkeypatch.setattr(machine_roof, "_MEGABYTES", 1)
    with contextlib.closing(RoofMeter(2)) as made:
        made.measure()
        yield made


def test_nobody_is_above_the_roof(meter):
    roof = meter.roof([])
    assert roof.flops > 0
    assert roof.bandwidth > 0
    quick = layer("q", "head", 1.0, cost=Cost(int(roof.flops), int(2 * roof.bandwidth)))
    higher = meter.roof([quick, layer("no cost", "head", 1.0), layer("not run", "head")])
    assert higher.flops == pytest.approx(1000 * roof.flops)
    assert higher.least_ms(quick.cost) == pytest.approx(1.0)


def test_more_tries_do_not_lower_it(meter):
    before = meter.roof([])
    meter.measure()
    assert meter.roof([]).flops >= before.flops


@pytest.mark.parametrize(
    ("backend", "precision", "threads", "word"),
    [
        ("tensorrt", "fp32", usable_cores(), "tensorrt"),
        ("cpu", "int8", usable_cores(), "int8"),
        ("cpu", "fp32", usable_cores() + 1, "threads"),
    ],
)
def test_why_there_is_none(monkeypatch, backend, precision, threads, word):
    for name in machine_roof._LIMITS:
        monkeypatch.delenv(name, raising=False)
    assert word in why_no_roof(backend, precision, threads)
    assert why_no_roof("cpu", "fp32", usable_cores()) == ""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "OMP_NUM_THREADS" in why_no_roof("cpu", "fp32", usable_cores())
