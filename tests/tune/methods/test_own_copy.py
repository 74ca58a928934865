"""A copy of a backbone costs the memory of what is learned, and nothing else."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from vptkit.tune.methods.own_copy import own_copy  # noqa: E402


@pytest.mark.parametrize("own", [(), ("norm.weight", "blocks.1.attn.qkv.bias")], ids=str)
def test_all_but_what_is_its_own_is_shared(make_vit, own):
    model = make_vit()
    copied = own_copy(model, own)
    assert copied is not model
    for name, value in model.named_parameters():
        assert (copied.get_parameter(name) is value) == (name not in own)
    copied.blocks[0].attn.proj = torch.nn.Identity()  # its modules are its own
    assert isinstance(model.blocks[0].attn.proj, torch.nn.Linear)


def test_a_copy_of_a_copy_reads_what_the_first_one_learns(make_vit):
    """As of LayerNorms below low-rank factors."""
    first = own_copy(make_vit(), ["norm.weight"])
    assert own_copy(first).norm.weight is first.norm.weight
