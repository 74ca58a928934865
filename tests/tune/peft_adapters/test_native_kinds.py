"""The formulas of single kinds, in a line of numpy each."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

from vptkit.errors import AdapterError
from vptkit.tune.peft_adapters.native_kinds import NATIVE, Layer, outcome

OUT, IN = 5, 4
RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((OUT, IN))
FACTORS = {
    "lora_A.weight": RNG.standard_normal((2, IN)),
    "lora_B.weight": RNG.standard_normal((OUT, 2)),
}


def merged(kind, ends, weight=WEIGHT, **config):
    layer = Layer(name="q", weight=weight, ends=ends)
    found = outcome(kind, layer, {"r": 2, "lora_alpha": 2, **config})
    return found, found.change.applied(layer.matrix)


def test_lora_and_dora():
    expected = WEIGHT + FACTORS["lora_B.weight"] @ FACTORS["lora_A.weight"]
    np.testing.assert_allclose(merged("LORA", FACTORS)[1], expected)
    magnitude = np.arange(1.0, 1 + OUT)
    for name in ("lora_magnitude_vector", "lora_magnitude_vector.weight"):
        dora = merged("LORA", {**FACTORS, name: magnitude}, use_dora=True)[1]
        np.testing.assert_allclose(np.linalg.norm(dora, axis=1), magnitude)
        np.testing.assert_allclose(
            dora / magnitude[:, None] * np.linalg.norm(expected, axis=1)[:, None], expected
        )
    zero = {name: value * 0 for name, value in FACTORS.items()}
    with pytest.raises(AdapterError, match="a row of its weight is zero"):
        merged("LORA", {**zero, "lora_magnitude_vector": magnitude}, WEIGHT * 0, use_dora=True)


def test_a_rank_that_is_none():
    """More ranks than the matrix has are one whole difference."""
    wide = {"lora_A.weight": np.ones((9, IN)), "lora_B.weight": np.ones((OUT, 9))}
    found, weight = merged("LORA", wide, r=9, lora_alpha=9)
    assert (found.change.low_rank, found.change.whole.shape) == (None, (OUT, IN))
    np.testing.assert_allclose(weight, WEIGHT + 9)


def test_ia3():
    rows, columns = np.arange(OUT)[:, None] + 1.0, np.arange(IN)[None] + 1.0
    found, weight = merged("IA3", {"ia3_l": rows})
    np.testing.assert_allclose(weight, rows * WEIGHT)
    np.testing.assert_allclose(found.factor, rows.ravel())
    found, weight = merged("IA3", {"ia3_l": columns})
    np.testing.assert_allclose(weight, WEIGHT * columns)
    assert found.factor is None
    kernel = RNG.standard_normal((OUT, 3, 2, 2))
    channels = np.array([1.0, 2.0, 3.0])[None, :, None, None]
    weight = merged("IA3", {"ia3_l": channels}, kernel)[1]
    np.testing.assert_allclose(weight.reshape(kernel.shape), kernel * channels)


def test_beft_and_shira():
    found, weight = merged("BEFT", {"beft_bias": np.ones((1, OUT))})
    assert found.added.tolist() == [1] * OUT
    assert weight is not WEIGHT
    places = np.array([[0, 4, 4], [1, 3, 3]], np.int32)
    weight = merged("SHIRA", {"shira_weight": np.ones(3), "shira_indices": places})[1]
    assert ((weight - WEIGHT)[0, 1], (weight - WEIGHT)[4, 3]) == pytest.approx((1, 2))


@pytest.mark.parametrize(
    ("kind", "ends", "message"),
    [
        ("LORA", {"lora_A.weight": np.ones((2, IN))}, r"q\.lora_B\.weight is missing"),
        (
            "LORA",
            {**FACTORS, "lora_C.weight": np.ones(2)},
            r"not tensors of LORA: q\.lora_C\.weight",
        ),
        ("IA3", {}, r"q\.ia3_l is missing"),
        ("IA3", {"ia3_l": np.ones((3, 1))}, r"shape \(3, 1\), expected \(5, 1\)"),
        ("BEFT", {"beft_bias": np.ones((1, 3))}, r"expected \(1, 5\)"),
        ("SHIRA", {"shira_weight": np.ones(3)}, r"expected whole numbers \(2, 3\)"),
        (
            "SHIRA",
            {"shira_weight": np.ones(1), "shira_indices": np.array([[5], [0]])},
            "lie outside",
        ),
        (
            "SHIRA",
            {"shira_weight": np.ones(1), "shira_indices": np.array([[0], [-1]])},
            "lie outside",
        ),
    ],
)
def test_tensors_that_do_not_fit(kind, ends, message):
    with pytest.raises(AdapterError, match=message):
        merged(kind, ends)
    assert kind in NATIVE
