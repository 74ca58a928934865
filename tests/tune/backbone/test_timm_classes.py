"""Classes by name: those of the installed timm, and empty ones for those that it lacks."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

from timm.models import vision_transformer

from tests.support.timms import OLDER, REASON
from vptkit.tune.backbone import timm_classes


def test_a_class_that_timm_lacks_has_no_instance(make_vit):
    for module in ("timm.layers.mlp", "timm.layers.no_such_module"):
        missing = timm_classes._class(module, "NoSuchClass")
        assert missing.__name__ == "NoSuchClass"
        assert not any(isinstance(part, missing) for part in make_vit().modules())


def test_blocks_are_made_of_these(make_vit):
    model = make_vit(init_values=0.1)
    assert type(model.blocks[0].attn) is timm_classes.Attention
    assert type(model.blocks[0].ls1) is timm_classes.LAYER_SCALES[0]
    assert timm_classes.Attention is vision_transformer.Attention


def test_the_newest_timm_lacks_none():
    if OLDER:
        pytest.skip(REASON)
    found = [getattr(timm_classes, name) for name in timm_classes.__all__[1:]]
    assert all(kind.__module__.startswith("timm.") for kind in found)
