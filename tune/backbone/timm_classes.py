"""timm's classes that its older releases keep elsewhere, or don't have.

vptkit allows every timm since 1.0.12 (`pyproject.toml`). A class that the installed one lacks is
here a class of which no module is an instance, so that code may ask `type(module) is Class`
without asking for versions.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = [
    "LAYER_SCALES",
    "Attention",
    "AttentionRope",
    "RotaryEmbeddingDinoV3",
    "RotaryEmbeddingMixed",
]


def _class(module: str, name: str) -> Any:
    """The class by a module that has or imports it, or an empty one in its place."""
    found = getattr(import_module(module), name, None) if find_spec(module) else None
    return found or type(name, (), {"__doc__": "Not in the installed timm."})


Attention = _class("timm.models.vision_transformer", "Attention")  # its own until 1.0.16
# one class today; before 1.0.21 each of these files had its own
LAYER_SCALES = (
    _class("timm.models.vision_transformer", "LayerScale"),
    _class("timm.models.vision_transformer_relpos", "LayerScale"),
)
AttentionRope = _class("timm.layers.attention", "AttentionRope")  # since 1.0.16
RotaryEmbeddingMixed = _class("timm.layers.pos_embed_sincos", "RotaryEmbeddingMixed")  # 1.0.17
RotaryEmbeddingDinoV3 = _class("timm.layers.pos_embed_sincos", "RotaryEmbeddingDinoV3")  # 1.0.20
