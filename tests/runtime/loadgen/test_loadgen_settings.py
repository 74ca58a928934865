"""What LoadGen is asked for, and what is refused."""

from __future__ import annotations

import pytest

from vptkit.errors import VptkitError
from vptkit.runtime.loadgen.loadgen_settings import LoadGenSettings


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scenario": "Burst"}, "Burst.*SingleStream, MultiStream, Server, Offline"),
        ({"scenario": "Offline", "latency_bound_ms": 5.0}, "--latency-bound-ms has no effect"),
        ({"scenario": "SingleStream", "target_qps": 5.0}, "--target-qps has no effect"),
        ({"scenario": "MultiStream", "batch": 4}, "--batch has no effect on MultiStream"),
        ({"scenario": "Server", "accuracy": True, "queries": 9}, "no effect with --accuracy"),
        ({"scenario": "Server", "queries": 0}, "--queries is 0"),
        ({"scenario": "Server", "target_qps": float("nan")}, "--target-qps is nan"),
        ({"scenario": "Server", "min_duration": float("inf")}, "--min-duration is inf"),
        ({"scenario": "Server", "batch": 0}, "--batch is 0"),
    ],
)
def test_what_is_refused(options, told):
    with pytest.raises(VptkitError, match=told):
        LoadGenSettings(**options)


def test_queries_alone_bound_a_run():
    assert LoadGenSettings(scenario="Server").seconds == 10
    assert LoadGenSettings(scenario="Server", queries=5).seconds == 0
    both = LoadGenSettings(scenario="Server", queries=5, min_duration=600)
    assert both.seconds == 600
    assert not both.shorter_than_mlperf


def test_rates_that_were_measured_are_taken_unless_given():
    assert LoadGenSettings(scenario="Server").expected_qps(100) == 50
    assert LoadGenSettings(scenario="Offline").expected_qps(100) == 125
    assert LoadGenSettings(scenario="Server", target_qps=7).expected_qps(100) == 7
