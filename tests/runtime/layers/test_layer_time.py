from __future__ import annotations

import pytest

from vptkit.runtime.layers.layer_comparison import compare_layers
from vptkit.runtime.layers.layer_time import LayerProfile, LayerTime, Roof, Span
from vptkit.runtime.layers.operator_costs import Cost, Tensor

ROOF = Roof(flops=1e9, bandwidth=1e9, source="said")


def layer(name, place, *ms, operator="MatMul", cost=None):
    spans = tuple(Span(10 * i, value) for i, value in enumerate(ms))
    return LayerTime(
        name=name, operator=operator, place=place, spans=spans, cost=cost, type="float"
    )


def profile(*layers, name="a", roof=ROOF, runs=3, **changes):
    spans = tuple(Span(10 * i, 8.0) for i in range(runs))
    return LayerProfile(
        **{"name": name, "backend": "cpu", "batch": 1, "threads": 1, "roof": roof}
        | {"runs": spans, "layers": layers}
        | changes
    )


def test_medians_add_up():
    found = profile(
        layer("head", "head", 1, 2, 9),
        layer("q", "blocks.0.attention", 1, 1, 3),
        layer("k", "blocks.0.attention", 2, 2, 2),
    )
    assert [place.place for place in found.places] == ["blocks.0.attention", "head"]
    assert [place.ms for place in found.places] == [3, 2]
    assert (found.layers_ms, found.run_ms) == (5, 8)
    assert found.to_json()["places"][0]["share"] == pytest.approx(0.6)


def test_the_roof_is_the_longer_of_computing_and_moving():
    assert ROOF.least_ms(Cost(2_000_000, 1_000_000)) == 2
    assert ROOF.least_ms(Cost(0, 3_000_000)) == 3
    one = profile(layer("q", "head", 4, 4, 4, cost=Cost(2_000_000, 1_000_000)))
    document = one.to_json()["layers"][0]
    assert document["of_roof"] == pytest.approx(0.5)
    assert document["gflops"] == pytest.approx(0.5)
    assert document["gbs"] == pytest.approx(0.25)
    unknown = profile(layer("q", "head", 4), layer("k", "head", 4, cost=Cost(1, 1)))
    assert unknown.places[0].of_roof(ROOF) is None


def test_what_did_not_run_has_no_times():
    document = profile(layer("q", "head"), roof=None, no_roof="nothing ran", runs=0).to_json()
    assert (document["run_ms"], document["layers_ms"]) == (None, None)
    assert (document["layers"][0]["ms"], document["places"][0]["share"]) == (None, None)
    assert document["roof"] == {"unavailable": "nothing ran"}


def test_a_comparison_tells_parts_and_layers():
    before = profile(
        layer("q", "blocks.0.attention", 3),
        layer("s", "blocks.0.attention", 1, operator="Split"),
        layer("a", "adapter", 1),
        layer("h", "head", 2),
    )
    after = profile(
        layer("q", "blocks.0.attention", 1),
        layer("k", "blocks.0.attention", 1),
        layer("h", "head", 1),
    )
    changes = {change.place: change for change in compare_layers(before, after)}
    assert list(changes) == ["adapter", "blocks.0.attention", "head"]
    attention = changes["blocks.0.attention"]
    assert (attention.before, attention.after, attention.ms) == (4, 2, -2)
    assert attention.operators == {"MatMul": 1, "Split": -1}
    assert changes["adapter"].after is None
    assert not changes["adapter"].same
    assert changes["head"].same


def test_tensors_are_kept():
    own = LayerTime(name="q", operator="Add", place="head", inputs=(Tensor("float", (1,)),))
    assert own.inputs[0].bytes == 4
