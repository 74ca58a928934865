"""Classes that the installed timm lacks are classes of which nothing is an instance."""

from __future__ import annotations

import pytest

pytest.importorskip("timm")

from vptkit.tune.backbone import timm_classes


@pytest.mark.parametrize("name", timm_classes.__all__)
def test_each_is_timms_own_or_nobodys(name):
    found = getattr(timm_classes, name)
    assert isinstance(found, type)
    assert found.__module__.startswith("timm.") or not found.__mro__[1:-1]


def test_what_timm_lacks():
    for module in ("timm.layers.attention", "timm.no_such_module"):
        made = timm_classes._class(module, "NoSuchClass")
        assert made.__name__ == "NoSuchClass"
        assert type(made()) is made
    assert timm_classes._class("timm.layers", "Mlp").__module__.startswith("timm.")
