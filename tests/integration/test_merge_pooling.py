"""Attention pooling over merged tokens: graph, reference, and the equation that both follow."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.support.merging_models import merging_model, tiny_model
from tests.support.tolerances import CLEARLY, PARITY_FP32, largest_difference
from vptkit.export.graph.folded_graph import Writer
from vptkit.tune.backbone import reference

# pools the patches; the class token, too, with rotary positions
POOLED = ["vit_base_patch16_siglip_224", "vit_pe_core_base_patch16_224"]


@pytest.mark.parametrize("name", POOLED)
@pytest.mark.parametrize("attention", ["proportional", "plain"])
@pytest.mark.parametrize("insert", ["deep", "shallow", "none"])
def test_graphs_say_what_the_reference_says(name, attention, insert):
    """Sizes count in a pool whatever attention does in the blocks, as they do in means."""
    case = merging_model(name, insert=insert, attention=attention, pool="map")
    found = case.run(case.graph())
    assert largest_difference(found, case.reference()) <= PARITY_FP32
    plain = replace(case.adapter, merging=None)
    assert largest_difference(found, case.reference(plain)) > CLEARLY * PARITY_FP32


@pytest.mark.parametrize("name", POOLED)
def test_a_token_counts_once_a_patch(name):
    """Of equal tokens: as if each stood there as often as it has patches."""
    model = tiny_model(name)
    k = model.num_prefix_tokens
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, k + 4, 32, generator=generator, dtype=torch.float64)
    size = torch.tensor([[1.0] * k + [3, 1, 2, 1], [1.0] * k + [1, 1, 1, 4]]).double()
    found = reference.final(model, z, k, "map", "before_pool", size)
    for image in range(2):
        whole = z[image].repeat_interleave(size[image].long(), dim=0)[None]
        expected = reference.final(model, whole, k, "map", "before_pool")
        torch.testing.assert_close(found[image : image + 1], expected)
    unsized = reference.final(model, z, k, "map", "before_pool")
    assert (found - unsized).abs().max() > 1e-3


def test_a_broken_twin_fails(monkeypatch):
    """Sizes squared."""
    case, right = merging_model(POOLED[1], pool="map"), Writer.latent_pool

    def squared(self, x, rows):
        self.merger.sizes = self.b.op("Mul", [self.merger.sizes] * 2, "wrong")
        return right(self, x, rows)

    assert largest_difference(case.run(case.graph()), case.reference()) <= PARITY_FP32
    monkeypatch.setattr(Writer, "latent_pool", squared)
    assert largest_difference(case.run(case.graph()), case.reference()) > CLEARLY * PARITY_FP32
