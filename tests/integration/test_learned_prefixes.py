"""Learned keys and values (E²VPT): the graphs say what the reference says, at every kind of attention."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import torch

from tests.integration import coverage
from tests.support.adapter_files import answers, files_of
from tests.support.strategies import Setup, build
from tests.support.tolerances import CLEARLY, PARITY_FP64, PARITY_REAL_WEIGHTS, largest_difference
from vptkit.errors import AdapterError, BackboneError
from vptkit.export.bank.export_bank import export_bank
from vptkit.export.bundle.baselines import export_baselines
from vptkit.export.bundle.export_bundle import export
from vptkit.export.fold.fold_network import fold
from vptkit.export.graph.folded_graph import folded_graph
from vptkit.export.graph.graph_options import GraphOptions
from vptkit.export.graph.unfolded_graph import unfolded_graph
from vptkit.formats.adapter import write_adapter
from vptkit.formats.bundle import open_bundle
from vptkit.tune.backbone.reference import adapter_logits, with_learned_prefix
from vptkit.tune.backbone.spec_from_timm import spec_from_model

SMALL = Setup(depth=2, batch=2)
# A key bias that is dropped; rotated pairs; biases by position; norms of keys; parallel; grouped heads
NAMES = [
    "vit_base_patch16_224",
    "eva02_base_patch14_224",
    "beit_base_patch16_224",
    "vit_relpos_small_patch16_224",
    "vit_base_patch16_xp_224",
    "vit_base_patch16_sapiens2",
]
SETUPS = {
    "absorbed": {},
    "query": {"registers": 2},
    "full": {"insert": "none"},
    "shallow": {"insert": "shallow"},
    "mean of prompts": {"pool": "avg_prompts"},
    "shallow mean of prompts": {"pool": "avg_prompts", "insert": "shallow", "depth": 1},
    "mean": {"pool": "avg", "qkv_bias": False, "layer_scale": True},
}


def with_learned(adapter, spec, blocks=None):
    """The adapter with learned keys and values: another number in each block."""
    rng, found = np.random.default_rng(5), dict(adapter.tensors)
    for i in range(spec.depth) if blocks is None else blocks:
        shape = (2 + i, spec.key_heads(i) * spec.head_width)
        for kind in ("keys", "values"):
            found[f"prefix.{i}.{kind}"] = rng.standard_normal(shape)
    return replace(adapter, tensors=found)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_attention(name):
    model = coverage.small_model(name)
    spec = spec_from_model(model, name)
    plain = coverage.adapter_for(name, model, spec, "deep")
    adapter = with_learned(plain, spec)
    expected = coverage.logits(model, spec, adapter)
    for folded in (True, False):
        found = coverage.graph_logits(model, spec, adapter, folded=folded)
        assert largest_difference(found, expected) <= PARITY_REAL_WEIGHTS
    without = coverage.logits(model, spec, plain)
    assert largest_difference(without, expected) > CLEARLY * PARITY_REAL_WEIGHTS


@pytest.mark.slow
@pytest.mark.parametrize("form", SETUPS)
def test_every_form_of_a_block_in_double_precision(form):
    from tests.integration.test_parity import run_fp64

    case = build(replace(SMALL, **SETUPS[form]))
    adapter = with_learned(case.adapter, case.spec, range(case.spec.depth - 1, case.spec.depth))
    expected = adapter_logits(case.model, adapter, torch.from_numpy(case.pixels)).numpy()
    last = form if form in ("query", "full") else "absorbed"
    options = GraphOptions(dtype=np.float64, last_block=last)
    how = adapter.insert, adapter.pool, adapter.norm
    folded = folded_graph(case.spec, fold(case.spec, case.weights, adapter), *how, options)
    for graph in (folded, unfolded_graph(case.spec, case.weights, adapter, options)):
        found = run_fp64(graph, {"images": case.images})
        assert largest_difference(found, expected) <= PARITY_FP64
    assert largest_difference(case.reference, expected) > CLEARLY * PARITY_FP64


@pytest.mark.slow
def test_a_bundle_and_why_no_bank(tmp_path):
    """Parity through the files; scores and mix are counted; with prompts they are one prefix."""
    files = files_of(tmp_path, replace(SMALL, insert="none"), golden=False)
    plain = export(files.adapter, files.out, weights=files.weights)
    case = files.case
    adapter = with_learned(case.adapter, case.spec)
    single = {k: v.astype(np.float32) for k, v in adapter.tensors.items()}
    write_adapter(files.adapter, replace(adapter, tensors=single))
    manifest = export(files.adapter, files.out, weights=files.weights, force=True)
    expected = adapter_logits(case.model, adapter, torch.from_numpy(case.pixels)).numpy()
    assert largest_difference(answers(files.out, case), expected) <= PARITY_REAL_WEIGHTS
    d, tokens = case.spec.width, case.spec.tokens
    assert manifest["macs"]["graph"] - plain["macs"]["graph"] == 2 * d * (2 * tokens + 3)
    assert manifest["macs"]["backbone"] == plain["macs"]["backbone"]
    assert [*set(manifest["folds"]) - set(plain["folds"])] == [
        "learned keys and values → constant key/value prefixes"
    ]
    (tmp_path / "b").mkdir()
    named = export_baselines(files.out, tmp_path / "b")
    graph = open_bundle(named["unfolded"]).manifest["macs"]["graph"]
    assert graph == manifest["macs"]["unfolded"] == plain["macs"]["unfolded"] + 10 * d * tokens
    with pytest.raises(AdapterError, match=r"learned keys and values \(prefix.*\).* baked bundle"):
        export_bank([files.adapter], tmp_path / "bank.vptk", weights=files.weights)


def test_the_reference_refuses_what_it_cannot_join():
    with (
        pytest.raises(BackboneError, match="need one attention in a block, Linear has 0"),
        with_learned_prefix(torch.nn.Linear(1, 1), (torch.zeros(1, 1), torch.zeros(1, 1))),
    ):
        pass
