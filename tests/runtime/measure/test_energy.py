from __future__ import annotations

import threading

import pytest

from tests.support.held_memory import held_bytes
from vptkit.errors import MissingError
from vptkit.runtime.measure.energy import (
    Energy,
    Idle,
    Readings,
    Sampler,
    measure_energy,
    measure_idle,
)


class Meter:
    """A meter that answers what a test says."""

    source, total = "a fake", ("in",)

    def __init__(self, read, counts="watts"):
        self.read, self.counts = read, counts


def steady(**rails):
    return Meter(lambda: dict(rails))


def mean_watts(meter, *samples):
    readings = Readings(meter)
    for seconds, found in samples:
        readings.add(seconds, found)
    assert readings.count == len(samples)
    return readings.mean_watts()


def test_power_is_integrated_over_uneven_samples():
    samples = [(0.0, {"in": 2.0}), (1.0, {"in": 4.0}), (4.0, {"in": 10.0})]
    # 3 J in the first second, 21 J in the other three; the plain mean of the samples is 5.33 W
    assert mean_watts(steady(), *samples)["in"] == pytest.approx(6.0)


def test_energy_is_the_difference_of_its_ends():
    samples = [(0.0, {"in": 100.0}), (1.0, {"in": 0.0}), (4.0, {"in": 120.0})]
    assert mean_watts(Meter(None, "joules"), *samples) == {"in": 5.0}


@pytest.mark.parametrize("counts", ["watts", "joules"])
def test_rails_that_come_and_go_are_left_out(counts):
    meter = Meter(None, counts)
    samples = [(0.0, {"in": 1.0, "gpu": 1.0}), (1.0, {"in": 1.0}), (2.0, {"in": 1.0, "gpu": 1.0})]
    late = [(t, found | ({"late": 1.0} if t else {})) for t, found in samples]
    expected = {"watts": 1.0, "joules": 0.0}[counts]
    assert mean_watts(meter, *samples) == mean_watts(meter, *late) == {"in": expected}
    with pytest.raises(MissingError, match="a fake: in stopped answering"):
        mean_watts(meter, (0.0, {"in": 1.0}), (1.0, {}))
    with pytest.raises(MissingError, match="the clock stopped"):
        mean_watts(meter, (1.0, {"in": 1.0}), (1.0, {"in": 1.0}))


def test_readings_take_no_memory():
    """Broken twin: a list of them, which an hour makes long."""
    readings = Readings(Meter(None))
    for i in range(2):
        readings.add(i / 20, {"in": 1.0})
    few = held_bytes(readings)
    for i in range(2, 2000):
        readings.add(i / 20, {"in": 1.0})
    assert held_bytes(readings) <= few + 100
    assert readings.mean_watts()["in"] == pytest.approx(1.0)


def test_energy_of_an_image_is_less_idle():
    energy = Energy(
        images=400, seconds=10.0, watts=9.0, idle_watts=5.0, rails={"in": 9.0}, source="a fake"
    )
    assert energy.joules_per_image == pytest.approx(0.1)
    assert energy.to_json() == {
        "joules_per_image": pytest.approx(0.1),
        "watts": 9.0,
        "idle_watts": 5.0,
        "source": "a fake",
        "rails": {"in": 9.0},
        "seconds": 10.0,
        "images": 400,
    }


def test_a_block_is_measured_beside_idle_time():
    now = [0.0]
    power = [4.0]

    def clock():
        return now[0]

    def sleep(seconds):
        now[0] += seconds

    def call():
        power[0] = 10.0
        now[0] += 0.25

    def read():
        return {"in": power[0], "soc": power[0] / 2}

    meter = Meter(read)
    idle = measure_idle(meter, seconds=3.0, interval=1e9, clock=clock, sleep=sleep)
    assert idle == Idle(rails={"in": 4.0, "soc": 2.0}, seconds=3.0)
    call()
    found = measure_energy(call, 8, meter, idle, seconds=2.0, interval=1e9, clock=clock)
    assert (found.images, found.seconds) == (64, 2.0)
    assert (found.watts, found.idle_watts, found.rails["soc"]) == (10.0, 4.0, 5.0)
    assert found.joules_per_image == pytest.approx(6.0 * 2.0 / 64)


def test_a_call_longer_than_the_block_is_made_once():
    now = [0.0]

    def call():
        now[0] += 9.0

    found = measure_energy(
        call, 1, steady(**{"in": 1.0}), Idle(rails={"in": 0.0}, seconds=1.0), seconds=2.0,
        interval=1e9, clock=lambda: now[0],
    )  # fmt: skip
    assert (found.images, found.seconds) == (1, 9.0)


def test_the_meter_is_read_while_the_block_runs():
    enough = threading.Event()
    reads = []

    def read():
        reads.append(threading.current_thread())
        if len(reads) >= 5:
            enough.set()
        return {"in": 1.0}

    with Sampler(Meter(read), interval=1e-4) as sampler:
        assert enough.wait(60)
    assert sampler.readings.count == len(reads) >= 6
    assert len(set(reads)) == 2
    assert sampler.readings.mean_watts() == {"in": pytest.approx(1.0)}


def test_a_meter_that_breaks_is_no_silence():
    broken = threading.Event()

    def read():
        if threading.current_thread() is not threading.main_thread():
            broken.set()
            raise RuntimeError("the bus is gone")
        return {"in": 1.0}

    with pytest.raises(RuntimeError, match="the bus is gone"), Sampler(Meter(read), interval=1e-4):
        assert broken.wait(60)
