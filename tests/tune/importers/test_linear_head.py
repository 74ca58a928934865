"""Heads that stand alone: DINOv2's official layout, made here, against its own formula."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
from safetensors.torch import save_file  # noqa: E402

from tests.support import foreign_checkpoints as made  # noqa: E402
from tests.support.foreign_checkpoints import HEAD, NAME, TINY, C, D, draw  # noqa: E402
from vptkit.errors import AdapterError, VptkitError  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune.backbone.timm_backbone import create_backbone  # noqa: E402
from vptkit.tune.importers.import_adapter import ImportConfig, import_adapter  # noqa: E402
from vptkit.tune.importers.linear_head import from_linear_head, weight_and_bias  # noqa: E402

OFFICIAL = {"weight": draw(C, 2 * D, seed=92), "bias": draw(C, seed=93)}


def dinov2_logits(model, pixels, head):
    """As `_LinearClassifierWrapper.forward` of dinov2/hub/classifiers.py with layers=1."""
    tokens = model.forward_features(pixels)  # behind the final norm
    cls_token, patch_tokens = tokens[:, 0], tokens[:, model.num_prefix_tokens :]
    linear_input = torch.cat([cls_token, patch_tokens.mean(dim=1)], dim=1)
    return linear_input @ head["weight"].T + head["bias"]


def test_an_official_head(bring, make_vit):
    model, adapter = make_vit(), bring(OFFICIAL, "linear")
    assert (adapter.method, adapter.insert, adapter.pool) == ("linear", "none", "token+avg")
    assert (adapter.norm, adapter.labels) == ("before_pool", ("0", "1", "2"))
    assert adapter.preprocess.mean == (0.5, 0.5, 0.5)  # the model's
    made.require_parity(adapter, dinov2_logits(model, made.pixels_of(adapter), OFFICIAL))
    twin = {**OFFICIAL, "weight": OFFICIAL["weight"].roll(D, dims=1)}  # the mean first
    with pytest.raises(AssertionError):
        made.require_parity(adapter, dinov2_logits(model, made.pixels_of(adapter), twin))


def test_registers_are_not_in_the_mean(tmp_path):
    settings = {**TINY, "reg_tokens": 4, "init_values": 0.1, "no_embed_class": True}
    torch.manual_seed(0)
    model = timm.create_model(NAME, num_classes=0, **settings).eval().requires_grad_(False)
    model.reg_token.mul_(50)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    torch.save(OFFICIAL, tmp_path / "dinov2_vits14_reg4_linear_head.pth")
    config = ImportConfig(
        layout="linear",
        backbone=NAME,
        backbone_args=settings,
        weights=tmp_path / "weights.safetensors",
        preprocess="authors",
    )
    output = tmp_path / "a.safetensors"
    import_adapter(tmp_path / "dinov2_vits14_reg4_linear_head.pth", output, config)
    adapter, model = read_adapter(output), create_backbone(NAME, settings, config.weights)
    made.require_parity(adapter, dinov2_logits(model, made.pixels_of(adapter), OFFICIAL))
    p = adapter.preprocess  # DINOv2's make_classification_eval_transform
    assert (p.mean, p.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (p.interpolation, p.crop_pct) == ("bicubic", 224 / 256)


@pytest.mark.parametrize("pool", [None, "token", "avg"])
def test_a_head_of_d_numbers_pools_as_the_model_or_as_told(bring, pool):
    wrapped = {f"module.linear.{name}": value for name, value in HEAD.items()}
    adapter = bring(wrapped, "linear", pool=pool)
    assert adapter.pool == (pool or "token")


def test_the_width_tells_the_pool(tiny_spec):
    """Of d numbers it tells nothing: the class token's and the mean's heads are as wide."""
    heads = {k: {"linear.weight": np.ones((3, k)), "linear.bias": np.ones(3)} for k in (8, 16)}
    found = {width: from_linear_head(head, tiny_spec) for width, head in heads.items()}
    assert {width: one.pool for width, one in found.items()} == {8: None, 16: "token+avg"}
    assert all(one.head == weight_and_bias(heads[width]) for width, one in found.items())


@pytest.mark.slow
def test_heads_of_other_widths_are_refused(bring):
    four = {"weight": draw(C, 5 * D), "bias": draw(C)}
    with pytest.raises(AdapterError, match=r"5 x 32 numbers, as DINOv2's linear4 heads"):
        bring(four, "linear")
    with pytest.raises(AdapterError, match=r"the head is \(3, 33\) .* expected \(C, 32\)"):
        bring({"weight": draw(C, D + 1), "bias": draw(C)}, "linear")
    with pytest.raises(AdapterError, match=r"the head is \(3, 64\) .* expected \(C, 32\)"):
        bring(OFFICIAL, "linear", pool="token")
    with pytest.raises(AdapterError, match=r"the head is \(3, 32\) .* expected \(C, 64\)"):
        bring(HEAD, "linear", pool="token+avg")
    with pytest.raises(AdapterError, match=r"the head is \(3, 64\) with a bias \(4,\)"):
        bring({**OFFICIAL, "bias": draw(4)}, "linear")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": draw(C, D)}, r"expected one weight and one bias, found \['weight'\]"),
        ({**HEAD, "a.weight": draw(C, D)}, "expected one weight and one bias"),
        ({"weight": draw(C), "bias": draw(C)}, r"the head's weight has the shape \(3,\)"),
        ({"weight": draw(0, D), "bias": draw(0)}, "holds no number"),
        ({k: v.int() for k, v in HEAD.items()}, "expected floating point"),
        ({**HEAD, "bias": torch.full((C,), torch.nan)}, r"head\.bias holds NaN"),
    ],
)
def test_files_that_are_no_head(bring, state, message):
    with pytest.raises(AdapterError, match=message):
        bring(state, "linear")


def test_a_head_beside_a_head(bring, head_file):
    with pytest.raises(AdapterError, match="leave --head out"):
        bring(HEAD, "linear", head=head_file)


@pytest.mark.parametrize("layout", ["vpt", "bpt"])
def test_the_authors_models_do_not_pool_so(layout):
    with pytest.raises(VptkitError, match=r"--pool token\+avg: no model of .PT's code pools so"):
        ImportConfig(layout=layout, backbone=NAME, pool="token+avg")
