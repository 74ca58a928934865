"""Energy of an image: power while it is computed, less the power of the idle machine.

Idle is measured with the sessions open and nothing running, so what is left is what the images
cost. A meter is read from a thread of its own; rails and GPUs are slow (milliseconds to tenths of a
second), so a block of seconds is measured, never one call.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vptkit.errors import MissingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vptkit.devices.power.meters import Meter

    from .telemetry import Instruments

__all__ = [
    "Energy",
    "EnergyMeter",
    "Idle",
    "Readings",
    "Sampler",
    "measure_energy",
    "measure_idle",
]

IDLE_SECONDS = 3.0
INTERVAL = 0.05  # seconds between two reads of a meter


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """The machine with nothing to do: rail → watts, over so many seconds."""

    rails: dict[str, float]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What images cost.

    Attributes:
        images, seconds: the block that was measured.
        watts, idle_watts: of the meter's total, mean over the block and over the idle time.
        rails: rail → watts, idle not subtracted.
        source: which meter.
    """

    images: int
    seconds: float
    watts: float
    idle_watts: float
    rails: dict[str, float]
    source: str

    @property
    def joules_per_image(self) -> float:
        """Less idle. Near or below zero where the work drowns in the meter's noise."""
        return (self.watts - self.idle_watts) * self.seconds / self.images

    def to_json(self) -> dict[str, Any]:
        """As the profile writes it."""
        return {
            "joules_per_image": self.joules_per_image,
            "watts": self.watts,
            "idle_watts": self.idle_watts,
            "source": self.source,
            "rails": self.rails,
            "seconds": self.seconds,
            "images": self.images,
        }


class Readings:
    """What a meter read, summed up as it comes: memory does not grow with time.

    Power is integrated by the trapezoid rule, energy is the difference of its ends.

    Attributes:
        count: readings.
    """

    def __init__(self, meter: Meter) -> None:
        self.count = 0
        self._meter = meter
        self._first, self._last = 0.0, 0.0  # seconds
        self._before: dict[str, float] = {}  # the first reading, or of power the last one
        self._sums: dict[str, float] = {}  # joules of the rails that no reading lacked

    def add(self, seconds: float, found: dict[str, float]) -> None:
        """Take note of a reading.

        Args:
            seconds: when; later than the one before.
            found: rail → watts, or joules counted so far, as the meter's `counts` says.
        """
        if not self.count:
            self._first, self._before, self._sums = seconds, found, dict.fromkeys(found, 0.0)
        elif self._meter.counts == "joules":
            first = self._before
            self._sums = {n: found[n] - first[n] for n in self._sums if n in found}
        else:
            past, spent = self._before, seconds - self._last
            self._sums = {
                n: joules + spent * (past[n] + found[n]) / 2
                for n, joules in self._sums.items()
                if n in found
            }
            self._before = found
        self._last = seconds
        self.count += 1

    def mean_watts(self) -> dict[str, float]:
        """Rail → mean power; rails that were missing in any reading are left out.

        Raises:
            MissingError: a rail of the total was missing, or no time passed.
        """
        spent = self._last - self._first
        lost = [name for name in self._meter.total if name not in self._sums]
        if lost or spent <= 0:
            raise MissingError(
                f"{self._meter.source}: {', '.join(lost) or 'the clock'} stopped answering"
            )
        return {name: joules / spent for name, joules in self._sums.items()}


class Sampler:
    """Reads a meter again and again while a block runs.

    Attributes:
        readings: one at either end of the block at least.
    """

    def __init__(
        self,
        meter: Meter,
        *,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.readings = Readings(meter)
        self._meter, self._interval, self._clock = meter, interval, clock
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="vptkit-meter", daemon=True)

    def __enter__(self) -> Sampler:
        self._take()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._take()
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            while not self._stop.wait(self._interval):
                self._take()
        except Exception as error:  # raised where the block ends
            self._failure = error

    def _take(self) -> None:
        # A rail takes a while to answer: the middle is when it was.
        start = self._clock()
        found = self._meter.read()
        self.readings.add((start + self._clock()) / 2, found)


def measure_idle(
    meter: Meter,
    *,
    seconds: float = IDLE_SECONDS,
    interval: float = INTERVAL,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Idle:
    """Do nothing for a while.

    Raises:
        MissingError: the meter stopped answering.
    """
    with Sampler(meter, interval=interval, clock=clock) as sampler:
        sleep(seconds)
    return Idle(rails=sampler.readings.mean_watts(), seconds=seconds)


def measure_energy(
    call: Callable[[], object],
    images: int,
    meter: Meter,
    idle: Idle,
    *,
    seconds: float,
    interval: float = INTERVAL,
    clock: Callable[[], float] = time.perf_counter,
) -> Energy:
    """Call one candidate alone, again and again.

    Args:
        call: one run.
        images: how many it takes.
        meter: what measures.
        idle: of the same meter.
        seconds: at least so long.
        interval: seconds between two reads of the meter.
        clock: seconds.

    Raises:
        MissingError: the meter stopped answering.
    """
    calls = 0
    with Sampler(meter, interval=interval, clock=clock) as sampler:
        start = clock()
        while calls == 0 or clock() - start < seconds:
            call()
            calls += 1
        spent = clock() - start
    rails = sampler.readings.mean_watts()
    return Energy(
        images=calls * images,
        seconds=spent,
        watts=_total(rails, meter),
        idle_watts=_total(idle.rails, meter),
        rails=rails,
        source=meter.source,
    )


class EnergyMeter:
    """Energy of one candidate after the other; idle power is measured first."""

    def __init__(
        self,
        tools: Instruments,
        seconds: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Measure idle power, unless `seconds` is 0 or there is no meter."""
        self._meter, self._seconds, self._clock = tools.meter, seconds, clock
        self._why = tools.no_meter
        self._idle: Idle | None = None
        if seconds > 0 and self._meter is not None:
            try:
                self._idle = measure_idle(self._meter, clock=clock)
            except MissingError as error:
                self._why = str(error)

    def measure(self, call: Callable[[], object], images: int) -> dict[str, Any] | None:
        """A row's "energy": None if nobody asked, {"unavailable": why} if it cannot be had."""
        if not self._seconds:
            return None
        if self._meter is None or self._idle is None:
            return {"unavailable": self._why}
        try:
            found = measure_energy(
                call, images, self._meter, self._idle, seconds=self._seconds, clock=self._clock
            )
        except MissingError as error:
            return {"unavailable": str(error)}
        return found.to_json()


def _total(rails: dict[str, float], meter: Meter) -> float:
    return sum(rails[name] for name in meter.total)
