"""Every backbone of timm that vptkit exports, as a table that ships (assets/backbones.json).

`python -m tests.integration.backbone_rows vptkit/assets/backbones.json` writes it from timm.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

__all__ = ["FIRST_CHOICES", "MEASURED", "Backbone", "all_backbones", "backbones_of"]

_FILE = Path(__file__).parent.parent / "assets" / "backbones.json"
# Of docs/benchmarks.md, and nothing else: median ms of one image, fp32, bare backbone, ONNX Runtime
# on 2 threads of an AMD EPYC (Zen 4).
MEASURED = {"vit_base_patch16_224": 262}
# Where it is to run → what to try first: free weights, the size that such machines are bought for.
FIRST_CHOICES = {
    "CPU": "vit_tiny_patch16_224",
    "Orin Nano": "vit_small_patch16_224",
    "server": "vit_base_patch14_reg4_dinov2",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """One name of timm.

    Attributes:
        name: of `timm.create_model`.
        parameters: numbers, the classifier left out.
        macs: multiply-accumulates of the blocks, for one image of its own size.
        image, patch: height and width in pixels.
        width, depth, tokens: d, L and T.
        tensors: how many tensors its weights have, the classifier left out.
        repository: of its default weights on Hugging Face's hub, None if timm has none.
        licence: of these, as timm notes it; None if it notes none.
        tags: of all weights that timm has for it.
    """

    name: str
    parameters: int
    macs: int
    image: tuple[int, int]
    patch: tuple[int, int]
    width: int
    depth: int
    tokens: int
    tensors: int
    repository: str | None
    licence: str | None
    tags: tuple[str, ...]

    @property
    def default_tag(self) -> str:
        """Which weights timm takes for the bare name; "" if it has none, or calls them otherwise."""
        return (self.repository or "").partition(".")[2]


@lru_cache(maxsize=1)
def all_backbones() -> tuple[Backbone, ...]:
    """The table, by name."""
    rows = json.loads(_FILE.read_text(encoding="ascii"))["backbones"]
    pairs = ("image", "patch", "tags")
    return tuple(Backbone(**{**row, **{key: tuple(row[key]) for key in pairs}}) for row in rows)


def backbones_of(
    *, width: int, depth: int, patch: tuple[int, int], rows: int | None, tensors: int
) -> list[str]:
    """Names of the backbones that weights of a geometry may be of, the likeliest first.

    Args:
        width, depth, patch: must be theirs.
        rows: of the position embedding, if there is one.
        tensors: how many there are.
    """

    def distance(one: Backbone) -> tuple[bool, int, bool, int, str]:
        patches = one.image[0] // one.patch[0] * (one.image[1] // one.patch[1])
        return (
            rows not in (one.tokens, patches),
            abs(one.tensors - tensors),
            one.repository is None,
            len(one.name),
            one.name,
        )

    fits = [b for b in all_backbones() if (b.width, b.depth, b.patch) == (width, depth, patch)]
    return [one.name for one in sorted(fits, key=distance)]
