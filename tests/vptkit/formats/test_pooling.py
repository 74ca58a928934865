"""The pools' names and widths stand in one place, and everything that lists them lists all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.strategies import CLASSES, Setup, build
from vptkit.errors import AdapterError
from vptkit.formats.adapter import read_adapter, with_spec, write_adapter
from vptkit.formats.pooling import POOLS, head_inputs, reads_class_token


def test_only_class_and_mean_are_twice_as_wide():
    assert POOLS == ("token", "avg", "token+avg", "avg_prompts", "map")
    assert {pool: head_inputs(pool, 192) for pool in POOLS} == dict.fromkeys(POOLS, 192) | {
        "token+avg": 384
    }
    assert [pool for pool in POOLS if reads_class_token(pool)] == ["token", "token+avg"]


def adapter_of(**setup):
    return build(Setup(pool="token+avg", **setup)).adapter


@pytest.mark.parametrize("insert", ["deep", "none"])
def test_an_adapter_without_a_description_of_its_backbone(tmp_path, insert):
    """Then d is half of what the head takes, and prompts and norms are d wide."""
    adapter = adapter_of(insert=insert)
    bare = replace(adapter, backbone=replace(adapter.backbone, spec=None))
    write_adapter(tmp_path / "a.safetensors", bare)
    found = read_adapter(tmp_path / "a.safetensors")
    assert found.tensors["head.weight"].shape == (CLASSES, 64)
    described = with_spec(found, adapter.backbone.spec)
    assert described.backbone.spec == adapter.backbone.spec
    odd = {**bare.tensors, "head.weight": np.ones((CLASSES, 63))}
    with pytest.raises(AdapterError, match=r"63 wide, and pool 'token\+avg' gives 2 d numbers"):
        write_adapter(tmp_path / "odd.safetensors", replace(bare, tensors=odd))


def test_a_head_of_another_pool_is_refused(tmp_path):
    adapter = adapter_of(insert="none", tuned_norms=False)
    with pytest.raises(AdapterError, match=r"head\.weight is 64 wide, the backbone \w+ 32$"):
        write_adapter(tmp_path / "a.safetensors", replace(adapter, pool="avg"))
    narrow = {**adapter.tensors, "head.weight": adapter.tensors["head.weight"][:, :32]}
    with pytest.raises(
        AdapterError, match=r"is 32 wide, the backbone \w+ 64 with pool 'token\+avg'"
    ):
        write_adapter(tmp_path / "a.safetensors", replace(adapter, tensors=narrow))


def test_a_backbone_without_class_token_is_refused(tmp_path):
    adapter = build(Setup(pool="avg", class_token=False, model_pool="avg")).adapter
    head = np.tile(adapter.tensors["head.weight"], 2)
    wide = replace(adapter, pool="token+avg", tensors={**adapter.tensors, "head.weight": head})
    with pytest.raises(AdapterError, match=r"pool is 'token\+avg', but .* no class token"):
        write_adapter(tmp_path / "a.safetensors", wide)
