"""Layers that were saved are read back as they were; what a stranger wrote is refused by field."""

from __future__ import annotations

import copy
import json

import pytest

from tests.runtime.layers.test_layer_time import layer, profile
from vptkit.errors import DataError
from vptkit.runtime.layers.layer_comparison import layers_document
from vptkit.runtime.layers.layers_file import read_layers
from vptkit.runtime.layers.layers_text import layers_text
from vptkit.runtime.layers.operator_costs import Cost

RAN = profile(
    layer("patch_embed/Conv", "patch_embed", 1.5, 2.5, 1.5, cost=Cost(1_000_000, 300_000)),
    layer("blocks.3.attn.q/MatMul", "blocks.3.attention", 3, 2, 3, cost=Cost(10, 2_000_000)),
    layer("head/Gemm", "head", 1, 1, 1),
    adapters=("birds", "cars"),
    note="beware",
)
NOT_RUN = profile(layer("q", "head"), name="b", roof=None, no_roof="nothing ran", runs=0)


@pytest.fixture
def saved(tmp_path):
    def save(document):
        path = tmp_path / "p.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    return save


def test_what_was_saved_is_read(saved):
    document = layers_document([RAN, NOT_RUN])
    found = read_layers(saved(document))
    assert [layers_text(one) for one in found] == [layers_text(RAN), layers_text(NOT_RUN)]
    again = layers_document(found)
    for one in (document, again):
        for each in one["profiles"]:
            for row in each["layers"]:
                row["nodes"] = []
    assert again == json.loads(json.dumps(document))


def test_something_else_is_not_taken_for_it(saved):
    assert read_layers(saved({"format": "vptkit.profile/1", "rows": []})) is None


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("format",), "vptkit.layers/9", "format"),
        (("layers",), [], "layers"),
        (("layers", 0, "ms"), -1, r"layers\[0\]\.ms"),
        (("layers", 0, "ms"), 1e300, "ms"),
        (("layers", 0, "place"), "blocks.0.<script>", "a part of the model"),
        (("layers", 0, "place"), "blocks." + "9" * 20, "a part of the model"),
        (("layers", 0, "gflop"), "1", "gflop"),
        (("runs",), 10**12, "runs"),
        (("roof",), {"gflops": 0, "gbs": 1, "source": ""}, "roof"),
        (("name",), "x" * 10_000, "name"),
    ],
)
def test_another_kind_is_named(saved, path, value, told):
    document = copy.deepcopy(layers_document([RAN]))
    place = document["profiles"][0]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(DataError, match=told) as caught:
        read_layers(saved(document))
    assert "p.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", '{"profiles": NaN}', '{"profiles": []}'])
def test_no_profile(saved, text):
    with pytest.raises(DataError, match=r"p\.json"):
        read_layers(saved(text))
