from __future__ import annotations

import json

import pytest

from vptkit.errors import TargetError
from vptkit.runtime.layers.layer_time import Span
from vptkit.runtime.layers.onnxruntime_events import read_events


def node(name, operator, ts, dur):
    shapes = {
        "input_type_shape": [{"float": [1, 4, 8]}],
        "output_type_shape": [{"float": [1, 4, 2]}],
    }
    args = {"op_name": operator, **shapes}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": args}


def run(ts, dur):
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": dur}


def runs(*starts, names=("blocks.0.mlp.fc1", "BiasGelu", "BiasGelu")):
    """Whole runs of 100 µs, in the order in which ONNX Runtime writes them: nodes before their run."""
    events = [{"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 5}]
    for number, start in enumerate(starts):
        events += [node(n, "MatMul", start + 10 * i, 5 + number) for i, n in enumerate(names)]
        events.append({"cat": "Node", "name": "x_fence_before", "ts": start, "dur": 1})
        events.append(run(start, 100))
    return events


def written(path, events):
    path.write_text(json.dumps(events), encoding="utf-8")
    return path


def test_each_layer_has_its_time_in_each_run(tmp_path):
    found, layers = read_events(written(tmp_path / "p.json", runs(1000, 2000, 3000)), skip=1)
    assert found == (Span(2.0, 0.1), Span(3.0, 0.1))
    assert [layer.name for layer in layers] == ["blocks.0.mlp.fc1", "BiasGelu", "BiasGelu"]
    assert {layer.place for layer in layers} == {"blocks.0.mlp"}
    assert layers[2].spans == (Span(2.02, 0.006), Span(3.02, 0.007))
    assert layers[0].ms == pytest.approx(0.0065)
    assert layers[0].cost.flops == 2 * 8 * 8
    assert (layers[0].nodes, layers[1].nodes) == (("blocks.0.mlp.fc1",), ())


def test_other_nodes_in_another_run_are_refused(tmp_path):
    events = runs(1000) + runs(2000, names=("blocks.0.mlp.fc1",))
    with pytest.raises(TargetError, match="other nodes"):
        read_events(written(tmp_path / "p.json", events))


def test_a_profile_without_runs_is_refused(tmp_path):
    with pytest.raises(TargetError, match="no runs"):
        read_events(written(tmp_path / "p.json", runs(1000)), skip=1)
