"""What a profile looks at besides the clock: the machine's state, and a meter of power."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from vptkit.devices.drivers.nvml import Nvml, open_nvml
from vptkit.devices.power.meters import Meter, find_meter
from vptkit.devices.power.operating_state import read_operating_state
from vptkit.errors import MissingError
from vptkit.runtime.backends.selection import on_nvidia

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Instruments", "find_instruments"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """What there is.

    Attributes:
        state: reads the machine's state (`vptkit.devices.power.operating_state.read_operating_state`).
        meter: measures power; None where nothing does.
        no_meter: why there is none.
    """

    state: Callable[[], dict[str, Any]] = field(repr=False)
    meter: Meter | None = None
    no_meter: str = "no meter"


def find_instruments(backend: str) -> Instruments:
    """Those that see what a backend does: the processor, or NVIDIA's GPU."""
    nvml: Nvml | None = None
    no_nvml = ""
    if on_nvidia(backend):
        try:
            nvml = open_nvml()
        except MissingError as error:
            no_nvml = f"; {error}"
    state = partial(read_operating_state, nvml=nvml)
    try:
        meter = find_meter("gpu" if on_nvidia(backend) else "cpu", nvml=nvml)
    except MissingError as error:
        return Instruments(state=state, no_meter=f"{error}{no_nvml}")
    return Instruments(state=state, meter=meter)
