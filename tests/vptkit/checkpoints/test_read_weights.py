"""Weights of a backbone from a file or a folder, without torch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vptkit.backbones.weights_places import remember_weights
from vptkit.checkpoints.read_weights import opened_remembered, opened_weights
from vptkit.checkpoints.weights_files import weights_file
from vptkit.errors import BackboneError
from vptkit.formats.backbone_weights import digest_of_weights, tensor_shapes
from vptkit.formats.tensor_file import write_tensors


def weights_of(spec, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return {k: rng.standard_normal(s).astype(dtype) for k, s in tensor_shapes(spec).items()}


def read_weights(path, spec):
    """All of them; None of another form."""
    with opened_weights(path, spec) as found:
        return None if found is None else dict(found)


def remembered_tensors(spec, digest):
    with opened_remembered(spec, digest) as found:
        return None if found is None else dict(found)


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
    with pytest.raises(BackboneError, match=r"a pickle, but not one of torch\.save"):
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
    with pytest.raises(BackboneError, match="not a file of tensors: a damaged archive"):
        read_weights(tmp_path / "real.pth", tiny_spec)


def test_what_is_neither_says_so(tmp_path, tiny_spec):
    """Not that a safetensors file is damaged, which nobody said it was."""
    (tmp_path / "w.pth").write_bytes(b"<html>not found</html>")
    with pytest.raises(BackboneError, match=r"neither of torch\.save nor safetensors"):
        read_weights(tmp_path / "w.pth", tiny_spec)


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
