"""One block of timm's, described or refused by what it has."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from timm.layers.mlp import SwiGLU  # noqa: E402
from timm.layers.norm import RmsNorm  # noqa: E402
from timm.models.vision_transformer import Block  # noqa: E402
from torch import nn  # noqa: E402

from tests.support.timms import OLDER  # noqa: E402
from vptkit.tune.backbone import block_spec_from_timm  # noqa: E402
from vptkit.tune.backbone.block_spec_from_timm import (  # noqa: E402
    activation_of,
    describe_block,
    norm_kind,
)


def described(**arguments):
    refused: list[str] = []
    return describe_block(Block(32, 4, **arguments), refused), refused


def test_a_plain_block():
    found, refused = described(qkv_bias=True, mlp_ratio=3.0)
    assert refused == []
    assert (found["heads"], found["mlp_width"], found["activation"]) == (4, 96, "gelu")
    assert (found["qkv_bias"], found["proj_bias"], found["layer_scale"]) == (True, True, False)
    assert (found["qk_norm"], found["mlp_norm"]) == (False, False)


def test_each_option_shows_in_its_own_field():
    plain = described(qkv_bias=True)[0]
    for arguments, changed in (
        ({"qkv_bias": False}, {"qkv_bias": False}),
        ({"qkv_bias": True, "init_values": 0.1}, {"layer_scale": True}),
        ({"qkv_bias": True, "qk_norm": True, "norm_layer": nn.LayerNorm}, {"qk_norm": True}),
        ({"qkv_bias": True, "act_layer": nn.SiLU}, {"activation": "silu"}),
        ({"qkv_bias": True, "mlp_layer": SwiGLU}, {"mlp": "swiglu"}),
    ):
        found, refused = described(**arguments)
        assert refused == []
        assert {key: value for key, value in found.items() if plain.get(key) != value} == changed


def test_what_it_cannot_say_is_refused_by_name():
    assert described(act_layer=nn.ReLU)[1] == ["act_layer=ReLU"]

    class Mine(Block):
        """A subclass may compute anything."""

    refused: list[str] = []
    assert describe_block(Mine(32, 4), refused) == {}
    assert refused == ["block_fn=Mine"]


def test_gelus_are_told_apart():
    assert activation_of(nn.GELU()) == "gelu"
    assert activation_of(nn.GELU(approximate="tanh")) == "gelu_tanh"
    assert activation_of(nn.Tanh()) is None


def test_norms_of_two_kinds():
    refused: list[str] = []
    assert norm_kind(nn.Sequential(RmsNorm(8), RmsNorm(8)), refused) == "rms"
    assert [text for text in refused if "computes by the variance" not in text] == []
    norm_kind(nn.Sequential(nn.LayerNorm(8), RmsNorm(8)), refused)
    assert refused[-1] == "LayerNorm and RmsNorm in one model"
    refused.clear()
    norm_kind(nn.Sequential(nn.LayerNorm(8, elementwise_affine=False), nn.BatchNorm1d(8)), refused)
    assert refused == ["LayerNorm without weight or bias", "norm_layer=BatchNorm1d"]


class VarianceNorm(nn.Module):
    """timm 1.0.12's RmsNorm, which takes the variance for the mean of squares."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(torch.var(x, dim=-1, keepdim=True) + 1e-6) * self.weight


def test_an_rms_norm_that_computes_something_else(monkeypatch):
    refused: list[str] = []
    if not OLDER:
        norm_kind(nn.Sequential(RmsNorm(8)), refused)
        assert refused == []
    monkeypatch.setattr(block_spec_from_timm, "RmsNorm", VarianceNorm)
    norm_kind(nn.Sequential(VarianceNorm(8)), refused)
    assert refused == [f"RmsNorm, which timm {timm.__version__} computes by the variance"]
