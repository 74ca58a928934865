"""Checks that all foreign layouts share."""

from __future__ import annotations

import numpy as np
import pytest

from vptkit.errors import AdapterError, BackboneError
from vptkit.tune.foreign_tensors.imported_tensors import (
    Foreign,
    renamed,
    require_same_backbone,
    require_shape,
    some,
)

WEIGHTS = {
    "norm.weight": np.float32([1, 2]),
    "pos_embed": np.float32([[3, 4], [5, 6]]),
    "head.weight": np.float32([[7, 8]]),
}


def foreign(**frozen):
    return Foreign("vpt", frozen=frozen)


def whole(**changes):
    frozen = {k: v for k, v in WEIGHTS.items() if not k.startswith("head")} | changes
    return foreign(**{k: v for k, v in frozen.items() if v is not None})


def test_a_whole_model_is_compared_number_by_number():
    require_same_backbone(foreign(), WEIGHTS)  # prompts alone say nothing of a backbone
    require_same_backbone(whole(), WEIGHTS)  # and no file has our head
    require_same_backbone(whole(pos_embed=WEIGHTS["pos_embed"].astype(np.float64)), WEIGHTS)
    with pytest.raises(BackboneError, match="pos_embed differs between the file and the backbone"):
        require_same_backbone(whole(pos_embed=WEIGHTS["pos_embed"] + np.float32(1e-6)), WEIGHTS)


def test_shapes_are_told_before_numbers():
    """Of another image size norms differ too, but the size is the cause."""
    other = whole(**{"norm.weight": np.float32([9, 9]), "pos_embed": np.zeros((3, 2))})
    with pytest.raises(BackboneError, match=r"pos_embed is \(3, 2\) .*Pass --image-size"):
        require_same_backbone(other, WEIGHTS)


def test_names_that_are_missing_or_not_known():
    with pytest.raises(AdapterError, match="names of this backbone are missing: pos_embed"):
        require_same_backbone(whole(pos_embed=None), WEIGHTS)
    with pytest.raises(AdapterError, match="does not have: gate"):
        require_same_backbone(whole(gate=np.ones(1)), WEIGHTS)


def test_a_norm_that_was_tuned_need_not_be_the_backbones():
    tuned = foreign(pos_embed=WEIGHTS["pos_embed"])
    tuned.tensors["ln.norm.weight"] = np.float32([0, 0])
    require_same_backbone(tuned, WEIGHTS)


def test_the_first_pattern_that_fits_the_whole_name_counts():
    table = ((r"a\.(\d)", r"first.\1"), (r"a\..*", "second"))
    assert [renamed(name, table) for name in ("a.1", "a.12", "b.1")] == ["first.1", "second", "b.1"]


@pytest.mark.parametrize("shape", [(1, 2), (1, 2, 4), (1, 2, 3, 1)])
def test_another_shape(shape):
    require_shape("x", np.zeros((1, 2, 3)), (1, None, 3))
    with pytest.raises(AdapterError, match=r"expected \(1, 'any', 3\)"):
        require_shape("x", np.zeros(shape), (1, None, 3))


def test_long_lists_are_cut():
    assert some(list("abcdefgh")) == "a, b, c, d, e, f, g, h"
    assert some(list("abcdefghij")) == "a, b, c, d, e, f, g, h and 2 more"
