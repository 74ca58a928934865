from __future__ import annotations

from tests.runtime.layers.test_layer_time import layer, profile
from vptkit.runtime.layers.layer_comparison import compare_layers
from vptkit.runtime.layers.layers_text import changes_text, layers_text
from vptkit.runtime.layers.operator_costs import Cost


def test_blocks_are_lines_and_parts_are_columns():
    text = layers_text(
        profile(
            layer("q\x1b[31m", "blocks.0.attention", 2, 2, 2, cost=Cost(1_000_000, 1)),
            layer("fc", "blocks.0.mlp", 1, 1, 1, cost=Cost(1_000_000, 1)),
            layer("h", "head", 1, 1, 1, cost=Cost(0, 500_000)),
        )
    )
    lines = text.splitlines()
    assert (
        lines[0]
        == "a: cpu, batch 1: 3 runs of 8.00 ms under the profiler, 4.00 ms of it between layers"
    )
    assert lines[1].split() == [
        "part",
        "attention",
        "mlp",
        "norm1",
        "norm2",
        "ms",
        "in",
        "all",
        "share",
        "of",
        "roof",
    ]
    assert lines[2].split() == ["blocks.0", "2.000", "1.000", "3.000", "75.0", "%", "67", "%"]
    assert lines[3].split() == ["head", "1.000", "25.0", "%", "50", "%"]
    assert "\x1b" not in text
    assert lines[-1] == "the roof: 1 GFLOP/s and 1 GB/s, said"


def test_merging_has_a_column_where_there_is_any():
    layers = [layer("q", "blocks.0.attention", 2), layer("m", "blocks.0.merge", 1)]
    header, row = layers_text(profile(*layers)).splitlines()[1:3]
    assert header.split()[:6] == ["part", "attention", "mlp", "norm1", "norm2", "merge"]
    assert row.split()[:4] == ["blocks.0", "2.000", "1.000", "3.000"]


def test_without_times_the_types_are_told():
    own = profile(layer("q", "head"), roof=None, runs=0, note="no GPU")
    lines = layers_text(own).splitlines()
    assert lines[0].endswith("1 layers, not run")
    assert lines[2].split() == ["head", "1", "float"]
    assert lines[-1] == "no GPU"


def test_what_is_the_same_is_one_line():
    one = profile(layer("q", "head", 2), layer("k", "tokens", 1))
    two = profile(layer("q", "head", 3), layer("k", "tokens", 1, operator="Add"), name="b")
    text = changes_text(one, two, compare_layers(one, two))
    assert text.startswith("a → b\n")
    assert "+1 Add, -1 MatMul" in text
    assert "1 parts have the same layers: +1.000 ms in all" in text
    assert text.endswith("all layers: 3.000 → 4.000 ms")
