from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from vptkit.tune.backbone.positions import resized  # noqa: E402

TINY = {"img_size": 56, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}


def test_what_cannot_be_resized_is_left_to_timm():
    """No square, another width, a model without positions."""
    model = timm.create_model("vit_tiny_patch16_224", **TINY)
    for shape in ((1, 1 + 15, 32), (1, 1, 32), (1, 17, 16), (17, 32)):
        assert resized({"pos_embed": torch.zeros(shape)}, model, "hf") is None
    assert resized({}, model, "hf") is None
    beit = timm.create_model("beit_base_patch16_224", **TINY)
    assert resized({"pos_embed": torch.zeros(1, 17, 32)}, beit, "hub") is None


@pytest.mark.parametrize("way", ["hf", "hub"])
def test_a_plain_grid_stays_plain(way):
    """Of equal positions every way makes equal ones, and the class token keeps its own."""
    model = timm.create_model("vit_tiny_patch16_224", **TINY)
    old = torch.cat([torch.full((1, 1, 32), 7.0), torch.full((1, 16, 32), 2.0)], dim=1)
    found = resized({"pos_embed": old}, model, way)
    assert found.shape == model.pos_embed.shape
    assert torch.equal(found[:, :1], old[:, :1])
    torch.testing.assert_close(found[:, 1:], torch.full((1, 49, 32), 2.0))
