from __future__ import annotations

import pytest

from vptkit.runtime.layers.node_places import (
    OTHER,
    SEVERAL,
    is_place,
    order_of,
    place_of,
    place_of_nodes,
)


@pytest.mark.parametrize(
    ("node", "place"),
    [
        ("images/float", "preprocessing"),
        ("patch/MatMul", "patch_embed"),
        ("patch_embed.norm", "patch_embed"),
        ("tokens.prefix/batch", "tokens"),
        ("adapter/rows/1", "adapter"),
        ("blocks.0.norm1", "blocks.0.norm1"),
        ("blocks.11.attn.q/MatMul", "blocks.11.attention"),
        ("blocks.11.attn/scores/MatmulTransposeFusion/", "blocks.11.attention"),
        ("/blocks.3.attn/softmax", "blocks.3.attention"),
        ("blocks.3/add1", "blocks.3.attention"),
        ("blocks.3.merge", "blocks.3.merge"),
        ("blocks.3.merge/a/rest", "blocks.3.merge"),
        ("blocks.3/class", "blocks.3.attention"),
        ("blocks.3.norm2", "blocks.3.norm2"),
        ("blocks.3.mlp.act/Erf", "blocks.3.mlp"),
        ("blocks.3/add2", "blocks.3.mlp"),
        ("blocks.3/what", "blocks.3"),
        ("blocks.3", "blocks.3"),
        ("norm", "head"),
        ("pool/class", "head"),
        ("head/MatMul", "head"),
        ("headroom", None),
        ("BiasGelu", None),
        ("", None),
        ("blocks.x.norm1", None),
    ],
)
def test_a_name_tells_the_part(node, place):
    assert place_of(node) == place


@pytest.mark.parametrize(
    ("nodes", "place"),
    [
        (["blocks.1.attn.q", "blocks.1.attn.k"], "blocks.1.attention"),
        (["blocks.1.norm1", "blocks.1.attn.k", "Gelu"], "blocks.1"),
        (["blocks.1.mlp.fc2", "blocks.2.norm1"], SEVERAL),
        (["tokens", "blocks.0.norm1"], SEVERAL),
        (["Gelu"], None),
        ([], None),
    ],
)
def test_several_nodes_have_a_part_in_common(nodes, place):
    assert place_of_nodes(nodes) == place


def test_places_stand_in_the_order_of_the_model():
    places = ["preprocessing", "adapter", "patch_embed", "tokens", "blocks.2.norm1"]
    places += [
        "blocks.2.attention",
        "blocks.2.merge",
        "blocks.2.norm2",
        "blocks.2.mlp",
        "blocks.2",
        "blocks.10.mlp",
    ]
    places += ["head", SEVERAL, OTHER]
    backwards = places[::-1]
    assert sorted(backwards, key=order_of) == places
    assert all(map(is_place, places))
