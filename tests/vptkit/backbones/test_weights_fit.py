"""Weights that do not fit are told in words: whose they may be, what they lack."""

from __future__ import annotations

import pytest

from vptkit.backbones.weights_fit import geometry_of, other_model, why_not


def shapes(width=192, depth=12, patch=16, rows=197, **more):
    found = {
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "pos_embed": (1, rows, width),
        **{f"blocks.{i}.norm1.weight": (width,) for i in range(depth)},
    }
    return found | more


def test_another_width_is_that_of_another_model():
    text = other_model(shapes(384, patch=14, rows=1370), shapes())
    assert text.startswith(
        "weights of another model: 384 wide, this backbone is 192, patches of 14 x 14 pixels, this "
        "backbone has 16 x 16: those of vit_small_patch14_"
    )
    assert text.endswith("?")


def test_another_depth():
    text = other_model(shapes(1024, 24), shapes(1024, 12))
    assert "24 blocks deep, this backbone has 12: those of vit_large_patch16_224" in text


def test_another_patch_only_where_it_counts():
    assert "patches of 8 x 8 pixels" in other_model(shapes(patch=8), shapes())
    assert other_model(shapes(patch=8), shapes(), patch=False) is None


def test_the_same_model_at_another_size_is_no_other():
    assert other_model(shapes(rows=50), shapes()) is None
    assert "positions of 50 tokens, this backbone has 197" in why_not(shapes(rows=50), shapes())


def test_nothing_known_of_such_a_size_is_not_guessed():
    assert "those of" not in other_model(shapes(123), shapes())


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("x.layer.0.attention.q.weight", "names are those of transformers"),
        ("encoder.layers.encoder_layer_0.ln_1.weight", "torchvision"),
        ("visual.transformer.resblocks.0.ln_1.weight", "CLIP"),
        ("layer1.0.conv1.weight", "ResNet"),
    ],
)
def test_names_of_others(name, part):
    assert geometry_of({name: (1,)}) is None
    assert part in why_not({name: (1,)}, shapes())


def test_a_few_tensors_more_and_less_are_listed_whole():
    text = why_not(shapes(odd=(1,)) | {"blocks.0.norm1.weight": (5,)}, shapes(extra=(1,)))
    assert "missing extra" in text
    assert "unexpected odd" in text
    assert "blocks.0.norm1.weight' has the shape [5], expected [192]" in text


def test_a_strangers_names_are_abridged():
    text = why_not(shapes(**{"x" * 10_000: (1,)}), shapes())
    assert len(text) < 500


def test_the_five_nearest_names_on_both_sides():
    """In the order of what they may be for, not of the alphabet."""
    theirs = {f"tower.layer.{i}.norm_one.weight": (192,) for i in range(12)}
    theirs |= {f"a.{i}": (1,) for i in range(20)} | {"patch_embed.proj.weight": (192, 3, 16, 16)}
    text = why_not(theirs, shapes())
    missing, unexpected = text.split("; ")[:2]
    assert missing.count("norm1.weight") == 5
    assert missing.endswith("and 8 more, which the backbone has")
    assert unexpected.count("norm_one.weight") == 5
    assert unexpected.endswith("and 27 more, which are in the file")
