"""Changes of modules, and of parts of one, as tensors of an adapter: what they make of a weight."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

from vptkit.checkpoints.hugging_face_names import Part
from vptkit.errors import AdapterError
from vptkit.formats.weight_deltas import LowRank, WeightDelta, changed, weight_deltas
from vptkit.tune.foreign_tensors.module_changes import changed_modules, changed_tensor

RNG = np.random.default_rng(0)
WEIGHTS = {
    "qkv.weight": RNG.standard_normal((6, 4)),
    "norm.bias": np.ones(4),
    "qkv.bias": np.ones(6),
}
Q, K, WHOLE = Part("qkv", 0, 3), Part("qkv", 1, 3), Part("qkv")
LOW = WeightDelta(low_rank=LowRank(RNG.standard_normal((1, 4)), RNG.standard_normal((2, 1))))


def becomes(changes):
    """The names, and the weight that they mean."""
    tensors = changed_modules(changes, WEIGHTS)
    return set(tensors), changed(WEIGHTS["qkv.weight"], "qkv.weight", weight_deltas(tensors))


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        (LOW, LOW, {"delta.qkv.a", "delta.qkv.b"}),
        (
            LOW,
            WeightDelta(out_scale=np.array([2.0, 3.0])),
            {"delta.qkv.a", "delta.qkv.b", "scale.qkv.out"},
        ),
        (WeightDelta(out_scale=np.array([2.0, 1])), WeightDelta(), {"scale.qkv.out"}),
        (LOW, WeightDelta(in_scale=np.arange(4.0)), {"delta.qkv.weight"}),
        (
            WeightDelta(whole=np.ones((2, 4)), out_scale=np.array([2.0, 1])),
            LOW,
            {"delta.qkv.weight"},
        ),
        (WeightDelta(), WeightDelta(), set()),
    ],
)
def test_parts_of_one_linear(first, second, names):
    found, weight = becomes({Q: first, K: second})
    assert found == names
    old = WEIGHTS["qkv.weight"]
    expected = [first.applied(old[:2]), second.applied(old[2:4]), old[4:]]
    np.testing.assert_allclose(weight, np.concatenate(expected), rtol=1e-6, atol=1e-6)


def test_a_whole_linear():
    change = WeightDelta(
        low_rank=LowRank(np.ones((1, 4)), np.ones((6, 1))),
        out_scale=np.arange(6.0),
        in_scale=np.arange(4.0),
    )
    found, weight = becomes({WHOLE: change})
    assert found == {"delta.qkv.a", "delta.qkv.b", "scale.qkv.out", "scale.qkv.in"}
    np.testing.assert_allclose(weight, change.applied(WEIGHTS["qkv.weight"]), rtol=1e-6)
    nothing = WeightDelta(
        low_rank=LowRank(np.ones((1, 4)), np.zeros((6, 1))),
        out_scale=np.ones(6),
        in_scale=np.ones(4),
    )
    assert becomes({WHOLE: nothing})[0] == set()
    with pytest.raises(AdapterError, match="changed as a whole and in parts"):
        becomes({WHOLE: change, Q: LOW})
    with pytest.raises(AdapterError, match="not finite in float32"):
        becomes({WHOLE: WeightDelta(out_scale=np.full(6, 1e300))})


def test_whole_tensors():
    """A norm's own numbers; of others the difference, nothing if there is none."""
    norms = {"norm.bias": (4,)}
    found = changed_tensor("norm.bias", np.full(4, 3.0), WEIGHTS, norms)
    assert {k: v.tolist() for k, v in found.items()} == {"ln.norm.bias": [3] * 4}
    found = changed_tensor("qkv.bias", np.full(6, 3.0), WEIGHTS, norms)
    assert {k: v.tolist() for k, v in found.items()} == {"delta.qkv.bias": [2] * 6}
    assert changed_tensor("qkv.bias", np.ones(6), WEIGHTS, norms) == {}
