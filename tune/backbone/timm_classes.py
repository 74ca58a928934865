"""timm's classes that moved between its releases, or that its older releases don't have.

vptkit allows every timm since 1.0.12 (`pyproject.toml`). A class that the installed one lacks is
here a class of which no module is an instance, so that code may ask `type(module) is Class`
without asking for versions.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = [
    "Attention",
    "AttentionRope",
    "RotaryEmbeddingCat",
    "RotaryEmbeddingDinoV3",
    "RotaryEmbeddingMixed",
]


def _class(name: str, *modules: str) -> Any:
    """The class from the first of timm's modules that exists and has it, else an empty class."""
    for module in (f"timm.{end}" for end in modules):
        found = getattr(import_module(module), name, None) if find_spec(module) else None
        if found is not None:
            return found
    return type(name, (), {"__doc__": "Not in the installed timm."})


_SINCOS = "layers.pos_embed_sincos"
Attention = _class("Attention", "layers.attention", "models.vision_transformer")  # moved in 1.0.16
AttentionRope = _class("AttentionRope", "layers.attention")  # since 1.0.16
RotaryEmbeddingCat = _class("RotaryEmbeddingCat", _SINCOS)
RotaryEmbeddingMixed = _class("RotaryEmbeddingMixed", _SINCOS)  # since 1.0.17
RotaryEmbeddingDinoV3 = _class("RotaryEmbeddingDinoV3", _SINCOS)  # since 1.0.20
