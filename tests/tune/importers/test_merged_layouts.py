"""SSF's and RepAdapter's files: their formulas, written as modules of torch, against the import."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from tests.support.foreign_checkpoints import HEAD, D, L, draw, pixels_of, require_parity  # noqa: E402
from vptkit.errors import AdapterError, BackboneError, VptkitError  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import spec_from_model, weights_from_model  # noqa: E402
from vptkit.tune.importers.merged_layouts import from_repadapter, from_ssf  # noqa: E402

R, GROUPS, S = 4, 2, 0.5


class Behind(torch.nn.Module):
    """Another module's output, scaled and shifted."""

    def __init__(self, inner: Any, scale: Any, shift: Any) -> None:
        super().__init__()
        self.inner, self.scale, self.shift = inner, scale, shift

    def forward(self, x: Any) -> Any:
        y = self.inner(x)
        if y.ndim == 4:  # [B, d, h, w] of the patch embedding
            return y * self.scale[:, None, None] + self.shift[:, None, None]
        return y * self.scale + self.shift


class Before(torch.nn.Module):
    """RepAdapter's two convolutions before another module."""

    def __init__(self, inner: Any, a: Any, b: Any) -> None:
        super().__init__()
        self.inner, self.a, self.b = inner, a, b

    def forward(self, x: Any) -> Any:
        y = x.transpose(1, 2)
        return self.inner((self.b(self.a(y)) * S + y).transpose(1, 2))


def put(model: Any, name: str, module: Any) -> None:
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, module)


def ssf(model: Any) -> dict[str, Any]:
    """A checkpoint of SSF; the model becomes what it means."""
    state = {k: v.clone() for k, v in model.state_dict().items()}
    state |= {f"head.{k}": v for k, v in HEAD.items()}
    places = {"patch_embed.": ("patch_embed.proj",), "": ("norm",)}
    for i in range(L):
        places[f"blocks.{i}."] = (f"blocks.{i}.norm1", f"blocks.{i}.norm2")
        places[f"blocks.{i}.attn."] = (f"blocks.{i}.attn.qkv", f"blocks.{i}.attn.proj")
        places[f"blocks.{i}.mlp."] = (f"blocks.{i}.mlp.fc1", f"blocks.{i}.mlp.fc2")
    for seed, (owner, modules) in enumerate(places.items()):
        for n, name in enumerate(modules, start=1):
            size = model.get_submodule(name).weight.shape[0]
            scale = 1 + 0.3 * draw(size, seed=10 * seed + n)
            shift = 0.3 * draw(size, seed=10 * seed + n + 5)
            state |= {f"{owner}ssf_scale_{n}": scale, f"{owner}ssf_shift_{n}": shift}
            put(model, name, Behind(model.get_submodule(name), scale, shift))
    return state


def repadapter(model: Any, kinds: tuple[str, ...]) -> dict[str, Any]:
    """A file of RepAdapter; the model becomes what it means."""
    state = {f"head.{k}": v for k, v in HEAD.items()}
    for i in range(L):
        for kind, behind in (("attn", "attn.qkv"), ("mlp", "mlp.fc1")):
            if kind not in kinds:
                continue
            a = torch.nn.Conv1d(D, R, 1).requires_grad_(False)
            b = torch.nn.Conv1d(R, D, 1, groups=GROUPS).requires_grad_(False)
            for c, module in (("A", a), ("B", b)):
                for end, value in module.named_parameters():
                    value.copy_(0.3 * draw(*value.shape, seed=len(state)))
                    state[f"blocks.{i}.adapter_{kind}.conv_{c}.{end}"] = value.clone()
            name = f"blocks.{i}.{behind}"
            put(model, name, Before(model.get_submodule(name), a, b))
    return state


def logits_of(model: Any, adapter: Any) -> Any:
    return model.forward_features(pixels_of(adapter))[:, 0] @ HEAD["weight"].T + HEAD["bias"]


def test_ssf(bring, make_vit):
    model = make_vit()
    state = ssf(model)
    adapter = bring({"state_dict": state}, "ssf")
    require_parity(adapter, logits_of(model, adapter))
    with pytest.raises(AssertionError):
        require_parity(adapter, logits_of(make_vit(), adapter))
    assert (adapter.method, adapter.pool, adapter.norm) == ("ssf", "token", "before_pool")
    assert bring.document["backbone_compared"] > 0
    kinds = {n.split(".")[0] + "." + n.split(".")[-1] for n in adapter.tensors}
    assert {"scale.out", "delta.bias", "ln.weight", "ln.bias"} <= kinds


@pytest.mark.parametrize("kinds", [("attn",), ("attn", "mlp")])
def test_repadapter(bring, make_vit, kinds):
    model = make_vit()
    adapter = bring(repadapter(model, kinds), "repadapter", scale=S)
    require_parity(adapter, logits_of(model, adapter))
    with pytest.raises(AssertionError):
        require_parity(adapter, logits_of(make_vit(), adapter))
    assert adapter.tensors["delta.blocks.0.attn.qkv.a"].shape == (R, D)
    assert ("delta.blocks.0.mlp.fc1.a" in adapter.tensors) == ("mlp" in kinds)


def test_the_scale_is_in_no_file(bring, make_vit):
    state = repadapter(make_vit(), ("attn",))
    with pytest.raises(VptkitError, match=r"--scale: .* configs"):
        bring(state, "repadapter")
    with pytest.raises(VptkitError, match="--scale goes with --format repadapter"):
        bring(state, "ssf", scale=1.0)


def test_another_backbone_under_ssf(bring, make_vit):
    state = ssf(make_vit())
    state["blocks.0.attn.proj.bias"] = state["blocks.0.attn.proj.bias"] + 1
    with pytest.raises(BackboneError, match=r"blocks\.0\.attn\.proj\.bias differs"):
        bring(state, "ssf")


@pytest.mark.parametrize(
    ("drop", "add", "message"),
    [
        (r"blocks\.0\.attn\.ssf_shift_1", {}, "scale and shift behind blocks.0.attn.qkv"),
        (r".*ssf_.*", {}, "names of the layout ssf are missing"),
        ("-", {"blocks.9.ssf_scale_1": np.ones(D)}, "blocks.9.ssf_scale_1 stands behind no module"),
        ("-", {"ssf_scale_2": np.ones(D)}, "ssf_scale_2 stands behind no module"),
        ("-", {"ssf_scale_1": np.ones(3)}, r"behind norm has the shape \(3,\)"),
    ],
)
def test_ssf_is_taken_strictly(make_vit, drop, add, message):
    state = {k: v.numpy() for k, v in ssf(make_vit()).items() if not re.fullmatch(drop, k)} | add
    model = make_vit()
    with pytest.raises(AdapterError, match=message):
        from_ssf(state, spec_from_model(model, "vit"), weights_from_model(model))


@pytest.mark.parametrize(
    ("drop", "add", "message"),
    [
        (r"blocks\.1\..*", {}, "an adapter before blocks.1.attn.qkv"),
        (r".*adapter.*", {}, "an adapter before blocks.0.attn.qkv"),
        (r"blocks\.1\..*conv_A.bias", {}, "before blocks.1.attn.qkv: missing conv_A.bias"),
        ("-", {"odd": np.ones(2)}, "does not have: odd"),
        ("-", {"blocks.7.adapter_attn.conv_A.bias": np.ones(2)}, "does not have: blocks.7"),
        ("-", {"blocks.0.adapter_attn.conv_B.weight": np.ones((D, 3, 1))}, "no equal groups"),
        ("-", {"blocks.0.adapter_attn.conv_A.weight": np.ones((R, 3, 1))}, "conv_A before"),
    ],
)
def test_repadapter_is_taken_strictly(make_vit, drop, add, message):
    state = repadapter(make_vit(), ("attn",))
    state = {k: v.numpy() for k, v in state.items() if not re.fullmatch(drop, k)} | add
    model = make_vit()
    with pytest.raises(AdapterError, match=message):
        from_repadapter(state, spec_from_model(model, "vit"), weights_from_model(model), S)
