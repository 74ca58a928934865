"""Weight deltas: the graphs say what the reference says, for every form a timm ViT's tensors have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import torch

from tests.integration import coverage
from tests.support.adapter_files import answers, files_of
from tests.support.random_deltas import deltas_of, is_linear, random_deltas
from tests.support.strategies import Setup, build
from tests.support.tolerances import CLEARLY, PARITY_FP64, PARITY_REAL_WEIGHTS, largest_difference
from vptkit.export.bundle.export_bundle import export
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.export.fold.fold_network import fold
from vptkit.export.graph.folded_graph import folded_graph
from vptkit.export.graph.graph_options import GraphOptions
from vptkit.export.graph.unfolded_graph import unfolded_graph
from vptkit.formats.adapter import write_adapter
from vptkit.formats.backbone_weights import norm_shapes, tensor_shapes
from vptkit.formats.weight_deltas import is_delta
from vptkit.tune.backbone.reference import adapter_logits, with_weight_deltas
from vptkit.tune.backbone.spec_from_timm import spec_from_model

# One of each form: fused, separate and grouped q, k, v; gates; blocks of all kinds; positions
NAMES = [
    "vit_base_patch16_224",
    "deit3_small_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "eva02_base_patch14_224",
    "vit_base_patch16_rope_mixed_224",
    "beit_base_patch16_224",
    "vit_relpos_small_patch16_224",
    "vit_base_patch16_siglip_224",
    "vit_base_patch16_rpn_224",
    "aimv2_large_patch14_224",
    "vit_small_patch16_18x2_224",
    "vit_huge_plus_patch16_dinov3",
    "vit_base_patch16_xp_224",
    "vit_base_patch16_sapiens2",
]
SMALL = Setup(depth=2, batch=2)


def changed_adapter(name: str, form: str = "mixed", insert: str = "deep"):
    """(model, spec, adapter): random deltas of every tensor beside random prompts."""
    model = coverage.small_model(name)
    spec = spec_from_model(model, name)
    plain = coverage.adapter_for(name, model, spec, insert)
    deltas = random_deltas(spec, np.random.default_rng(3), form)
    return model, spec, replace(plain, tensors={**plain.tensors, **deltas})


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_change_of_every_tensor(name):
    """Whole, low-rank and scaled by turns; the unfolded graph too."""
    model, spec, adapter = changed_adapter(name)
    expected = coverage.logits(model, spec, adapter)
    kept = {k: v for k, v in adapter.tensors.items() if not is_delta(k)}
    for folded in (True, False):
        found = coverage.graph_logits(model, spec, adapter, folded=folded)
        assert largest_difference(found, expected) <= PARITY_REAL_WEIGHTS
    without = coverage.logits(model, spec, replace(adapter, tensors=kept))
    assert largest_difference(without, expected) > CLEARLY * PARITY_REAL_WEIGHTS


def all_changed(case):
    """The case's adapter with a change of every tensor."""
    deltas = random_deltas(case.spec, np.random.default_rng(3))
    return replace(case.adapter, tensors={**case.adapter.tensors, **deltas})


def with_change(case, name: str, form: str):
    """The case's adapter with one tensor changed, float32 as in a file."""
    shape = tensor_shapes(case.spec)[name]
    deltas = deltas_of(name, shape, form, np.random.default_rng(7))
    return replace(case.adapter, tensors={**case.adapter.tensors, **deltas})


def graphs(case, adapter, form: str = "absorbed"):
    """(folded, unfolded), float64."""
    options = GraphOptions(dtype=np.float64, last_block=form)
    how = adapter.insert, adapter.pool, adapter.norm
    folded = folded_graph(case.spec, fold(case.spec, case.weights, adapter), *how, options)
    return folded, unfolded_graph(case.spec, case.weights, adapter, options)


@pytest.mark.slow
def test_each_tensor_by_itself_in_double_precision():
    """One forgotten tensor is not hidden behind the others: each change alone, and seen."""
    from tests.integration.test_parity import run_fp64

    case = build(SMALL)
    norms = norm_shapes(case.spec)
    for name, shape in tensor_shapes(case.spec).items():
        if name in norms or (name.startswith("blocks.0") and name.endswith("bias")):
            continue
        form = "low+out+in" if is_linear(name, shape) else "whole"
        adapter = with_change(case, name, form)
        expected = adapter_logits(case.model, adapter, torch.from_numpy(case.pixels)).numpy()
        for model in graphs(case, adapter):
            found = run_fp64(model, {"images": case.images})
            assert largest_difference(found, expected) <= PARITY_FP64, name
        moved = largest_difference(expected, case.reference)
        assert moved > CLEARLY * PARITY_FP64 or name.endswith("qkv.bias"), name


def test_the_graph_has_the_operators_and_the_size_of_one_without_deltas():
    """What costs nothing: the same nodes, the same constants' shapes, so the same work."""
    case = build(SMALL)
    adapter = all_changed(case)
    for with_them, without in zip(graphs(case, adapter), graphs(case, case.adapter), strict=True):
        nodes = [[(n.op_type, *n.input) for n in m.graph.node] for m in (with_them, without)]
        shapes = [[(i.name, *i.dims) for i in m.graph.initializer] for m in (with_them, without)]
        assert nodes[0] == nodes[1]
        assert shapes[0] == shapes[1]


def test_a_bundle_of_an_adapter_with_deltas(tmp_path):
    """Parity through the files, the manifest's words, and no more multiply-accumulates."""
    files = files_of(tmp_path, SMALL, golden=False)
    plain = export(files.adapter, files.out, weights=files.weights)
    case = files.case
    adapter = all_changed(case)
    single = {k: v.astype(np.float32) for k, v in adapter.tensors.items()}
    write_adapter(files.adapter, replace(adapter, tensors=single))
    manifest = export(files.adapter, files.out, weights=files.weights, force=True)
    assert manifest["macs"] == plain["macs"]
    assert set(manifest["folds"]) - set(plain["folds"]) == {"weight deltas → weights"}
    assert manifest["memory"] == plain["memory"]
    unfolded = files.out.with_name("u.vptk")
    export(files.adapter, unfolded, weights=files.weights, options=ExportOptions(fold="none"))
    expected = adapter_logits(case.model, adapter, torch.from_numpy(case.pixels)).numpy()
    for bundle in (files.out, unfolded):
        assert largest_difference(answers(bundle, case), expected) <= PARITY_REAL_WEIGHTS


def test_the_reference_leaves_the_model_as_it_was():
    """Also where the forward pass fails."""
    case = build(SMALL)
    adapter = all_changed(case)
    before = {k: v.clone() for k, v in case.model.state_dict().items()}
    changed: set[str] = set()

    def fails():
        with with_weight_deltas(case.model, adapter):
            now = case.model.state_dict()
            changed.update(k for k, v in now.items() if not torch.equal(v, before[k]))
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        fails()
    assert changed == set(tensor_shapes(case.spec)) - set(norm_shapes(case.spec))
    for name, value in case.model.state_dict().items():
        assert torch.equal(value, before[name]), name
