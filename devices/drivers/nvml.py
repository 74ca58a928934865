"""What NVIDIA's driver tells of a GPU: clocks, power, energy, temperature, reasons of throttling.

Through the package nvidia-ml-py (module pynvml), loaded when it is first asked. A Jetson's NVML
answers few of these calls, older drivers not all: every value is None on its own where it is not
supported. Tested on a stand-in; unverified on a GPU and on a Jetson.
"""

from __future__ import annotations

import os
from typing import Any

from vptkit.errors import MissingError, MissingExtraError

__all__ = ["Nvml", "open_nvml"]

# Bits that mean "slower than the clocks asked for"; idle and chosen clocks are no throttling.
_REASONS = {
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x020: "thermal slowdown (software)",
    0x040: "thermal slowdown (hardware)",
    0x080: "power brake",
    0x200: "board limit",
    0x400: "reliability",
}
# NVML_PERF_POLICY_*: nanoseconds held back so far
_POLICIES = {0: "power", 1: "thermal", 3: "board limit", 5: "reliability"}
_SM, _MEMORY = 1, 2  # NVML_CLOCK_*


class Nvml:
    """One GPU, as NVML sees it."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library, self._handle = library, handle

    def read(self) -> dict[str, Any]:
        """The state now; each value is None where it is not supported.

        Returns:
            {"name", "clocks": {"sm", "memory"} each {"mhz", "max_mhz"}, "temperature" in degrees
            Celsius, "watts", "limit_watts", "throttling": reasons that hold now, "held_back_ns":
            reason → nanoseconds since the driver was loaded}.
        """
        reasons = self._reasons()
        return {
            "name": self._name(),
            "clocks": {"sm": self._clock(_SM), "memory": self._clock(_MEMORY)},
            "temperature": self._ask("nvmlDeviceGetTemperature", 0),
            "watts": self.watts(),
            "limit_watts": _thousandth(self._ask("nvmlDeviceGetEnforcedPowerLimit")),
            "throttling": None
            if reasons is None
            else [text for bit, text in _REASONS.items() if reasons & bit],
            "held_back_ns": {
                name: value.violationTime
                for policy, name in _POLICIES.items()
                if (value := self._ask("nvmlDeviceGetViolationStatus", policy)) is not None
            },
        }

    def joules(self) -> float | None:
        """Energy since the driver was loaded (Volta and newer)."""
        return _thousandth(self._ask("nvmlDeviceGetTotalEnergyConsumption"))

    def watts(self) -> float | None:
        """Power; from Ampere on NVML may average it over a second."""
        return _thousandth(self._ask("nvmlDeviceGetPowerUsage"))

    def _clock(self, kind: int) -> dict[str, int | None]:
        return {
            "mhz": self._ask("nvmlDeviceGetClockInfo", kind),
            "max_mhz": self._ask("nvmlDeviceGetMaxClockInfo", kind),
        }

    def _reasons(self) -> int | None:
        # Renamed in NVML 12.
        names = ("Event", "Throttle")
        found = (self._ask(f"nvmlDeviceGetCurrentClocks{name}Reasons") for name in names)
        return next((int(bits) for bits in found if bits is not None), None)

    def _name(self) -> str | None:
        name = self._ask("nvmlDeviceGetName")
        return name.decode() if isinstance(name, bytes) else name

    def _ask(self, function: str, *arguments: Any) -> Any:
        call = getattr(self._library, function, None)
        if call is None:
            return None
        try:
            return call(self._handle, *arguments)
        except self._library.NVMLError:
            return None


def open_nvml(index: int = 0, library: Any = None) -> Nvml:
    """Find a GPU.

    Args:
        index: as CUDA counts, among those that CUDA_VISIBLE_DEVICES leaves. On a machine of
            different GPUs CUDA puts the fastest first and NVML goes by the bus, unless
            CUDA_DEVICE_ORDER is PCI_BUS_ID.
        library: stands in for pynvml in tests.

    Raises:
        MissingExtraError: nvidia-ml-py is not installed.
        MissingError: no driver, or no such GPU.
    """
    library = _pynvml() if library is None else library
    try:
        library.nvmlInit()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        chosen = [v.strip() for v in (visible or "").split(",")] if visible else []
        name = chosen[index] if index < len(chosen) else str(index)
        if name.isdigit():
            handle = library.nvmlDeviceGetHandleByIndex(int(name))
        else:
            handle = library.nvmlDeviceGetHandleByUUID(name)
    except library.NVMLError as error:
        raise MissingError(f"NVML does not answer: {error}") from error
    return Nvml(library, handle)


def _pynvml() -> Any:
    try:
        import pynvml  # optional
    except ModuleNotFoundError as error:
        raise MissingExtraError("nvidia-ml-py", "gpu", "reading a GPU's state") from error
    return pynvml


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000
