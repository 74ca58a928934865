"""Scenario and bounds of a run of LoadGen, with MLPerf's own beside ours.

MLPerf Inference (mlcommons/inference, loadgen/mlperf.conf) wants 600 s of each scenario, and for a
ResNet-50 on Server at most 15 ms for 99 % of the queries. The run here is shorter unless asked: it
finds out, and is no submission.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vptkit.errors import VptkitError

__all__ = ["SCENARIOS", "LoadGenSettings"]

SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")
_SECONDS, _MLPERF_SECONDS = 10.0, 600.0
_QUERIES = {"SingleStream": 100, "MultiStream": 662, "Server": 100, "Offline": 1}
_BOUND_MS = 15.0
_PERCENTILES = {"SingleStream": 0.9, "MultiStream": 0.99, "Server": 0.99}
_OF = {  # option → scenarios it has an effect on, in performance mode
    "latency_bound_ms": ("Server",),
    "target_qps": ("Server", "Offline"),
    "batch": ("Server", "Offline"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadGenSettings:
    """What LoadGen shall do; None takes the default.

    Attributes:
        scenario: one of SCENARIOS.
        accuracy: ask for each image once, and keep the answers, instead of measuring.
        latency_bound_ms: of Server: what 99 % of the queries may take, 15 ms unless given.
        queries: at least so many.
        min_duration: seconds, at least; 10 unless given, 0 if queries are given.
        target_qps: of Server: queries a second that arrive; of Offline: what is expected. Unless
            given, half of what was measured beforehand for Server, and a quarter more for Offline,
            whose run is too short where less is expected than is done.
        batch: of Server and Offline: images at once, 8 unless given, or what the bundle takes.
    """

    scenario: str
    accuracy: bool = False
    latency_bound_ms: float | None = None
    queries: int | None = None
    min_duration: float | None = None
    target_qps: float | None = None
    batch: int | None = None

    def __post_init__(self) -> None:
        """Check names, ranges, and that nothing is asked for in vain.

        Raises:
            VptkitError: an unknown scenario, a number out of range, an option without effect.
        """
        if self.scenario not in SCENARIOS:
            raise VptkitError(
                f"--loadgen {self.scenario!r} is not known, expected one of {', '.join(SCENARIOS)}"
            )
        for name, where in _OF.items():
            if getattr(self, name) is not None and self.scenario not in where:
                raise VptkitError(
                    f"{_option(name)} has no effect on {self.scenario}: it is of "
                    f"{' and '.join(where)}. Leave it out."
                )
        for name in ("latency_bound_ms", "queries", "min_duration", "target_qps"):
            value = getattr(self, name)
            if value is None:
                continue
            if self.accuracy:
                raise VptkitError(
                    f"{_option(name)} has no effect with --accuracy, which asks for each image "
                    "once. Leave it out."
                )
            if not (0 <= value < 1e9 and (value > 0 or name == "min_duration")):
                raise VptkitError(f"{_option(name)} is {value}, expected a positive number")
        if self.batch is not None and self.batch < 1:
            raise VptkitError(f"--batch is {self.batch}, expected at least 1")

    @property
    def seconds(self) -> float:
        """How long it shall take at least."""
        if self.min_duration is not None:
            return self.min_duration
        return 0.0 if self.queries is not None else _SECONDS

    @property
    def bound_ms(self) -> float | None:
        """What a query may take; None where the scenario has no bound."""
        return (self.latency_bound_ms or _BOUND_MS) if self.scenario == "Server" else None

    @property
    def shorter_than_mlperf(self) -> bool:
        """Whether it ends before MLPerf's 600 s."""
        return self.seconds < _MLPERF_SECONDS

    def to_json(self, qps: float) -> dict[str, Any]:
        """As the document has it, with what was taken.

        Args:
            qps: images a second that LoadGen was told.
        """
        return {
            **asdict(self),
            "queries": self.queries or _QUERIES[self.scenario],
            "min_duration": self.seconds,
            "latency_bound_ms": self.bound_ms,
            "target_qps": qps if self.scenario in _OF["target_qps"] else None,
        }

    def expected_qps(self, measured: float) -> float:
        """What LoadGen is told, of what one batch after the other did beforehand."""
        return self.target_qps or measured * (0.5 if self.scenario == "Server" else 1.25)

    def fill(self, loadgen: Any, qps: float) -> Any:
        """LoadGen's own TestSettings.

        Args:
            loadgen: the package.
            qps: images a second, of `expected_qps`.
        """
        found = loadgen.TestSettings()
        found.scenario = getattr(loadgen.TestScenario, self.scenario)
        modes = loadgen.TestMode
        found.mode = modes.AccuracyOnly if self.accuracy else modes.PerformanceOnly
        found.min_query_count = self.queries or _QUERIES[self.scenario]
        found.min_duration_ms = round(1000 * self.seconds)
        found.server_target_qps = found.offline_expected_qps = qps
        if self.scenario == "Offline" and self.queries is not None and self.seconds == 0:
            # Offline is one query; its samples are expected rate × duration × 1.1
            found.min_duration_ms = max(1, round(1000 * self.queries / qps))
        found.single_stream_expected_latency_ns = round(1e9 / qps)
        found.multi_stream_expected_latency_ns = round(8e9 / qps)
        found.server_target_latency_ns = round(1e6 * (self.bound_ms or _BOUND_MS))
        found.single_stream_target_latency_percentile = _PERCENTILES["SingleStream"]
        found.multi_stream_target_latency_percentile = _PERCENTILES["MultiStream"]
        found.server_target_latency_percentile = _PERCENTILES["Server"]
        return found


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
