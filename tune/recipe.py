"""The recipe: rates, decays and dropout of each method. One table; `docs/results.md` says what it rests on.

AdamW's first steps move every number by about its rate, so a rate is to be read beside the size of
what it moves: VPT's prompts begin within ±0.06, A at 0.02; a whitening matrix behind A multiplies
every step by what it multiplies the prompts by, so whitened forms take smaller ones. Norms begin at
the backbone's γ, near 1. LoRA's b begins at 0, and alpha / r makes its steps the same at any rank. A head that is the probe is at its optimum, and moves little; one that
begins at zero has all to learn.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Recipe", "recipe_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a run takes where nothing is given.

    Attributes:
        lr: rate of the prompts.
        lr_ln: of LayerNorms, which have no decay: it would pull γ to 0, not to the backbone's.
        lr_lora: of LoRA's factors.
        lr_head, wd_head: rate and decay of the head.
        dropout: on prompts.
    """

    lr: float
    lr_ln: float
    lr_lora: float
    lr_head: float
    wd_head: float
    dropout: float


_WHITENED = {"bilinear": 2e-3, "fwhiten": 1e-3, "twhiten": 1e-3}  # rates of bpt's prompts
_FREE = 5e-3  # of prompts that no whitening matrix multiplies
_LORA = 5e-3  # of alpha = 8 and any rank; on little evidence (docs/tune.md)


def recipe_of(method: str, *, insert: str, form: str, b_init: str, from_probe: bool) -> Recipe:
    """The recipe of a method.

    Args:
        method, insert, form, b_init: of `vptkit.tune.config.TuneConfig`.
        from_probe: the head begins as the probe; else at zero, with the rates of before that, for
            the papers' comparisons.
    """
    parts = method.split("+")
    whitened = "bpt" in parts and (form != "bilinear" or b_init == "whiten")
    dropout = 0.1 if "vpt" in parts and insert == "deep" else 0.0  # VPT's papers
    if not from_probe:
        return Recipe(
            lr=_FREE, lr_ln=1e-3, lr_lora=_LORA, lr_head=5e-3, wd_head=0.1, dropout=dropout
        )
    return Recipe(
        lr=_WHITENED[form] if whitened else _FREE,
        lr_ln=1e-2,
        lr_lora=_LORA,
        lr_head=1e-4,
        wd_head=0.0,
        dropout=dropout,
    )
