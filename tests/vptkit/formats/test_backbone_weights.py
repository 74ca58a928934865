"""The backbone's tensors: their shapes, the digest of their values."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest

from tests.support.strategies import Setup, build
from vptkit.formats.backbone_weights import (
    digest_of_weights,
    is_head,
    tensor_shapes,
)


def weights_of(spec, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return {k: rng.standard_normal(s).astype(dtype) for k, s in tensor_shapes(spec).items()}


# the shapes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setup",
    [
        Setup(),
        Setup(distilled=True, registers=0, depth=1),
        Setup(class_token=False, model_pool="avg", pool="avg", registers=0, pos_embed="none"),
        Setup(qkv_bias=False, proj_bias=False, fc_norm=True, layer_scale=False, norm_pre=False),
        Setup(final_norm=False, no_embed_class=True, tuned_norms=False),
    ],
    ids=range(5),
)
def test_the_shapes_are_those_of_timm(setup):
    case = build(setup)
    found = {k: v.shape for k, v in case.model.state_dict().items() if not is_head(k)}
    assert found == tensor_shapes(case.spec)


# the digest ---------------------------------------------------------------------------------------


def test_the_digest_is_what_the_design_says():
    """Computed here a second time: name, shape, little-endian float32, in the order of names."""
    weights = {"b": np.array([[1.5, -2.0]]), "a.c": np.array([0.25, 3.0, 1e-3]), "B": np.ones(1)}
    digest = hashlib.sha256()
    for name, shape, values in (
        ("B", "[1]", [1.0]),
        ("a.c", "[3]", [0.25, 3.0, 1e-3]),
        ("b", "[1, 2]", [1.5, -2.0]),
    ):
        digest.update(f"{name}\0{shape}\0".encode() + struct.pack(f"<{len(values)}f", *values))
    assert digest_of_weights(weights) == digest.hexdigest()


def test_the_digest_knows_neither_order_nor_type_nor_layout_nor_classifier(tiny_spec):
    weights = weights_of(tiny_spec)
    digest = digest_of_weights(weights)
    assert digest == digest_of_weights(dict(reversed(weights.items())))
    assert digest == digest_of_weights({k: v.astype(np.float64) for k, v in weights.items()})
    assert digest == digest_of_weights({k: v.astype(">f4") for k, v in weights.items()})
    assert digest == digest_of_weights({k: np.asfortranarray(v) for k, v in weights.items()})
    classifier = {"head.weight": np.ones((3, 8)), "head_dist.bias": np.ones(3)}
    assert digest == digest_of_weights(weights | classifier)


def test_the_digest_sees_every_change(tiny_spec):
    weights = weights_of(tiny_spec)
    digests = {digest_of_weights(weights)}
    for name, value in weights.items():
        digests.add(digest_of_weights(weights | {name: np.nextafter(value, np.float32(9))}))
    less = {k: v for k, v in weights.items() if k != "cls_token"}
    digests.add(digest_of_weights(less))
    digests.add(digest_of_weights(less | {"cls_tokem": weights["cls_token"]}))
    digests.add(digest_of_weights(weights | {"cls_token": weights["cls_token"][0]}))
    assert len(digests) == len(weights) + 4
