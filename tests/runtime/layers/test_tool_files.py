from __future__ import annotations

import json

import pytest

from tests.runtime.layers.test_layer_time import layer, profile
from vptkit.errors import OutputError
from vptkit.runtime.layers.layer_time import LayerTime, Span
from vptkit.runtime.layers.operator_costs import Tensor
from vptkit.runtime.layers.tool_files import (
    layer_information,
    profile_entries,
    time_entries,
    trace_of,
    write_json,
)


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
    write_json(trace_of([profile(layer("q", "head", 1, 1, 1))]), tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["displayTimeUnit"] == "ms"
    with pytest.raises(OutputError):
        write_json(trace_of([]), tmp_path / "none" / "t.json")


def test_a_profile_has_trtexecs_keys():
    head, first, second = profile_entries(
        profile(layer("q", "head", 1, 2, 6), layer("k", "head", 1, 1, 1))
    )
    assert head == {"count": 3}
    assert first == {
        "name": "q",
        "timeMs": 9,
        "averageMs": 3,
        "medianMs": 2,
        "percentage": pytest.approx(75),
    }
    assert second["percentage"] == pytest.approx(25)


def test_times_are_those_of_the_runs():
    entries = time_entries(profile(layer("q", "head", 1, 1, 1)))
    assert [entry["latencyMs"] for entry in entries] == [8, 8, 8]
    assert (entries[1]["startComputeMs"], entries[1]["endComputeMs"]) == (10, 18)
    assert len(entries[0]) == 12


def test_layers_are_described_as_the_inspector_does():
    own = LayerTime(
        name="blocks.0.norm1",
        operator="LayerNormalization",
        place="blocks.0.norm1",
        spans=(Span(0, 1),),
        nodes=("blocks.0.norm1",),
        inputs=(Tensor("float", (1, 4, 8)),),
        outputs=(Tensor("float16", (1, 4, 8)),),
    )
    document = layer_information(profile(own, bindings=("images", "logits")))
    assert document["Bindings"] == ["images", "logits"]
    (described,) = document["Layers"]
    assert described["Metadata"] == "[ONNX Layer: blocks.0.norm1]"
    assert described["Inputs"][0]["Dimensions"] == [1, 4, 8]
    assert described["Outputs"][0]["Format/Datatype"].endswith("FP16")


def test_an_engines_own_account_is_passed_on():
    account = {"Layers": ["a"], "Bindings": []}
    assert layer_information(profile(information=account)) is account
