"""Adapters that do not fit into a bank are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.bank_cases import family
from tests.support.exported_banks import assert_bank_refused
from vptkit.errors import AdapterError, BackboneError
from vptkit.export.bank.adapter_rows import rows_of, tunes_blocks
from vptkit.export.bank.export_bank import BankOptions, _bank


def another_backbone(adapter):
    return replace(adapter, backbone=replace(adapter.backbone, sha256="0" * 64))


def class_and_mean(adapter):
    wide = np.tile(adapter.tensors["head.weight"], 2)
    return replace(adapter, pool="token+avg", tensors={**adapter.tensors, "head.weight": wide})


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (another_backbone, BackboneError, "another backbone than the one that was tuned"),
        (lambda a: replace(a, pool="avg"), AdapterError, "pool 'avg', norm 'before_pool'"),
        (class_and_mean, AdapterError, r"pool 'token\+avg', .* this bank has 'token'"),
        (lambda a: replace(a, norm="after_pool"), AdapterError, "norm 'after_pool'"),
        (lambda a: replace(a, name="bilinear"), AdapterError, "two adapters have the name"),
        (
            lambda a: replace(a, preprocess=replace(a.preprocess, std=(0.1, 0.2, 0.3))),
            AdapterError,
            "preprocessing .* are built into the graph",
        ),
    ],
)
def test_adapters_that_do_not_fit_are_refused(tmp_path, change, error, match):
    assert_bank_refused(tmp_path, family(kinds=("bilinear", "linear")), change, error, match)


def test_shallow_prompts_are_refused(tmp_path):
    members = family(kinds=("bilinear", "whitened"))
    shallow = lambda a: replace(  # noqa: E731
        a,
        insert="shallow",
        tensors={k: v for k, v in a.tensors.items() if k not in ("prompt.1", "prompt.2")},
    )
    assert_bank_refused(tmp_path, members, shallow, AdapterError, "its prompts are shallow")


def test_rows_stand_behind_their_layer_norm():
    """P̂ γ + β of each block where the bank looks norms up, else P̂: mean 0 and variance 1."""
    members = family()
    adapters, case = members.adapters, members.case
    for layer_norms in ("yes", "no"):
        some = {k: a for k, a in adapters.items() if layer_norms == "yes" or not a.layer_norms()}
        tensors = {k: v.astype(np.float32) for k, v in case.weights.items()}
        bank = _bank(list(some.values()), case.spec, tensors, BankOptions(layer_norms=layer_norms))
        adapter = some["bilinear"]
        found = rows_of(adapter, bank).prompts
        for i in range(case.spec.depth):
            prompts = adapter.prompts(i)
            centred = prompts - prompts.mean(axis=1, keepdims=True)
            expected = centred / np.sqrt(prompts.var(axis=1, keepdims=True) + case.spec.norm_eps)
            if layer_norms == "yes":
                norm = f"blocks.{i}.norm1"
                expected = expected * tensors[f"{norm}.weight"] + tensors[f"{norm}.bias"]
            np.testing.assert_allclose(found[i], expected, rtol=1e-5, atol=1e-6)


def test_the_final_norm_alone_does_not_tune_blocks():
    """It folds into the adapter's own head, so a bank needs no table of norms for it."""
    case, adapters = family().case, family().adapters
    assert tunes_blocks(adapters["norms"], case.spec)
    assert not tunes_blocks(adapters["bilinear"], case.spec)
    norms = adapters["norms"]
    final = {k: v for k, v in norms.tensors.items() if not k.startswith("ln.blocks")}
    final = {k: v for k, v in final.items() if not k.startswith("ln.norm_pre")}
    assert any(k.startswith("ln.") for k in final)
    assert not tunes_blocks(replace(norms, tensors=final), case.spec)
