"""The backbone's tensors: their shapes, the digest of their values, the weights file."""

from __future__ import annotations

import dataclasses
import hashlib
import struct

import numpy as np
import pytest

from tests.support.strategies import Setup, build
from vptkit.backbones.weights_places import remember_weights
from vptkit.errors import BackboneError
from vptkit.formats.backbone_weights import (
    digest_of_weights,
    is_head,
    read_weights,
    remembered_tensors,
    tensor_shapes,
    weights_file,
)
from vptkit.formats.tensor_file import write_tensors


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


# the weights file ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_weights_of_every_precision_become_float32(tmp_path, tiny_spec, dtype):
    weights = weights_of(tiny_spec, dtype)
    classifier = {"head.weight": np.full((3, 8), np.nan, dtype=np.float32)}  # not looked at
    write_tensors(tmp_path / "w.safetensors", weights | classifier)
    found = read_weights(tmp_path / "w.safetensors", tiny_spec)
    assert found.keys() == weights.keys()
    for name, value in found.items():
        assert value.dtype == np.float32
        assert np.array_equal(value, weights[name].astype(np.float32))


def test_bfloat16_weights_become_float32(tmp_path, tiny_spec):
    import torch
    from safetensors.torch import save_file

    weights = {k: torch.from_numpy(v).bfloat16() for k, v in weights_of(tiny_spec).items()}
    save_file(weights, tmp_path / "w.safetensors")
    found = read_weights(tmp_path / "w.safetensors", tiny_spec)
    assert all(np.array_equal(found[k], v.float().numpy()) for k, v in weights.items())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(tmp_path, tiny_spec, value):
    weights = weights_of(tiny_spec)
    weights["blocks.1.mlp.fc2.bias"][3] = value
    write_tensors(tmp_path / "w.safetensors", weights)
    with pytest.raises(BackboneError, match=r"blocks\.1\.mlp\.fc2\.bias holds NaN or Inf"):
        read_weights(tmp_path / "w.safetensors", tiny_spec)


@pytest.mark.parametrize(
    "change",
    [
        {"cls_token": None},
        {"pos_embed": np.zeros((1, 10, 8), np.float32)},  # another grid
        {"model.norm.bias": np.zeros(8, np.float32)},  # another program's names
    ],
)
def test_weights_in_another_form_are_left_to_timm(tmp_path, tiny_spec, change):
    weights = {k: v for k, v in (weights_of(tiny_spec) | change).items() if v is not None}
    write_tensors(tmp_path / "w.safetensors", weights)
    assert read_weights(tmp_path / "w.safetensors", tiny_spec) is None


def test_a_file_that_is_none(tmp_path, tiny_spec):
    with pytest.raises(BackboneError, match="no such file"):
        read_weights(tmp_path / "w.safetensors", tiny_spec)
    with pytest.raises(BackboneError, match="an empty folder, not weights of a backbone"):
        read_weights(tmp_path, tiny_spec)
    (tmp_path / "w.safetensors").write_bytes(b"\x80\x02pickled")
    with pytest.raises(
        BackboneError, match=r"a PyTorch file that is called \.safetensors, not weights"
    ):
        read_weights(tmp_path / "w.safetensors", tiny_spec)


def test_a_folder_as_the_hub_has_it_is_looked_into(tmp_path, tiny_spec):
    write_tensors(tmp_path / "any.safetensors", weights_of(tiny_spec))
    assert read_weights(tmp_path, tiny_spec) is not None
    write_tensors(tmp_path / "other.safetensors", {"x": np.zeros(1, np.float32)})
    with pytest.raises(BackboneError, match=r"In it lie any\.safetensors, other\.safetensors"):
        read_weights(tmp_path, tiny_spec)
    write_tensors(tmp_path / "model.safetensors", weights_of(tiny_spec))
    assert weights_file(tmp_path) == tmp_path / "model.safetensors"
    assert read_weights(tmp_path, tiny_spec) is not None


def test_what_else_is_given_as_weights(tmp_path, tiny_spec, tiny_adapter, make_bundle):
    with pytest.raises(BackboneError, match="an adapter, not weights of a backbone"):
        read_weights(tiny_adapter, tiny_spec)
    with pytest.raises(BackboneError, match="a baked bundle, not weights of a backbone"):
        read_weights(make_bundle(), tiny_spec)
    (tmp_path / "real.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(BackboneError, match=r"a PyTorch file.*weights_only=True.*real\.safetens"):
        read_weights(tmp_path / "real.pth", tiny_spec)


def test_weights_of_another_width_are_said_to_be(tmp_path, tiny_spec):
    wide = dataclasses.replace(tiny_spec, width=16)
    write_tensors(tmp_path / "w.safetensors", weights_of(wide))
    with pytest.raises(BackboneError, match="16 wide, this backbone is 8"):
        read_weights(tmp_path / "w.safetensors", tiny_spec)


def test_remembered_weights_are_compared(tmp_path, tiny_spec, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "w.safetensors"
    write_tensors(file, weights_of(tiny_spec))
    digest = digest_of_weights(weights_of(tiny_spec))
    assert remembered_tensors(tiny_spec, digest) is None
    remember_weights(digest, file)
    assert digest_of_weights(remembered_tensors(tiny_spec, digest)) == digest
    changed = weights_of(tiny_spec)
    changed["norm.bias"] = changed["norm.bias"] + 1
    write_tensors(file, changed)
    assert remembered_tensors(tiny_spec, digest) is None
    file.write_text("no weights any more")
    assert remembered_tensors(tiny_spec, digest) is None
