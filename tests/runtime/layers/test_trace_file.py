from __future__ import annotations

import json

import pytest

from tests.runtime.layers.test_layer_time import layer, profile
from vptkit.errors import OutputError
from vptkit.runtime.layers.trace_file import trace_of, write_trace


def test_parts_lie_in_runs_and_layers_in_parts():
    own = profile(
        layer("q", "blocks.0.attention", 1, 1, 1),
        layer("h", "head", 2, 2, 2),
        adapters=("birds", "cars"),
    )
    events = [event for event in trace_of([own, own])["traceEvents"] if event["ph"] == "X"]
    first = [event for event in events if event["pid"] == 1 and event["ts"] < 10_000]
    assert [(e["tid"], e["name"]) for e in first] == [
        *[(0, "run 0"), (1, "blocks.0.attention"), (2, "q"), (1, "head"), (2, "h")]
    ]
    assert first[0]["args"] == {"backend": "cpu", "batch": 1, "adapter": "birds, cars"}
    assert {event["pid"] for event in events} == {1, 2}
    assert (first[4]["ts"], first[4]["dur"]) == (0, 2000)


def test_a_long_profile_gives_its_first_runs():
    many = profile(layer("q", "head", *range(1, 101)), runs=100)
    assert sum(e.get("tid") == 0 and e["ph"] == "X" for e in trace_of([many])["traceEvents"]) == 20


def test_the_file_is_whole_or_absent(tmp_path):
    write_trace([profile(layer("q", "head", 1, 1, 1))], tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["displayTimeUnit"] == "ms"
    with pytest.raises(OutputError):
        write_trace([], tmp_path / "none" / "t.json")
