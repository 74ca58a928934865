from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from vptkit.errors import BackboneError  # noqa: E402
from vptkit.tune.backbone.filled_model import fill, shapes_of  # noqa: E402

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
NAME, FILE = "vit_tiny_patch16_224", Path("w.pth")


def model(**args):
    return timm.create_model(NAME, num_classes=0, **TINY | args)


def test_all_or_nothing():
    state, target = dict(model().state_dict()), model()
    assert fill(target, state, FILE, "timm") == {}
    assert all(torch.equal(v, state[k]) for k, v in target.state_dict().items())
    assert shapes_of({**state, "head.bias": torch.zeros(3)}) == shapes_of(state)
    del state["norm.bias"]
    with pytest.raises(BackboneError, match=r"w\.pth: .*missing norm\.bias"):
        fill(model(), state, FILE, "timm")


def test_another_grid_is_resized_as_asked():
    state = dict(model(img_size=64).state_dict())
    assert fill(model(), dict(state), FILE, "timm") == {}
    found = {way: model() for way in ("timm", "hf", "hub")}
    for way, one in found.items():
        assert fill(one, dict(state), FILE, way) == ({} if way == "timm" else {"positions": way})
    assert not torch.equal(found["hf"].pos_embed, found["timm"].pos_embed)


def test_numbers_that_are_none():
    state = dict(model().state_dict())
    state["norm.bias"] = torch.full((32,), float("nan"))
    with pytest.raises(BackboneError, match=r"norm\.bias holds NaN"):
        fill(model(), state, FILE, "timm")
