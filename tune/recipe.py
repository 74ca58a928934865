"""The recipe: rates, decays and dropout of each method. One table; `docs/results.md` says what it rests on.

AdamW's first steps move every number by about its rate, so a rate is to be read beside the size of
what it moves: VPT's prompts begin within ±0.06, A at 0.02; a whitening matrix behind A multiplies
every step by what it multiplies the prompts by, so whitened forms take smaller ones. Norms begin at
the backbone's γ, near 1. A head that is the probe is at its optimum, and moves little; one that
begins at zero has all to learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import TuneConfig

__all__ = ["Recipe", "recipe_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a run takes where nothing is given.

    Attributes:
        lr: rate of the prompts.
        lr_ln: of LayerNorms, which have no decay: it would pull γ to 0, not to the backbone's.
        lr_head, wd_head: rate and decay of the head.
        dropout: on prompts.
    """

    lr: float
    lr_ln: float
    lr_head: float
    wd_head: float
    dropout: float


_WHITENED = {"bilinear": 2e-3, "fwhiten": 1e-3, "twhiten": 1e-3}  # rates of bpt's prompts
_FREE = 5e-3  # of prompts that no whitening matrix multiplies


def recipe_of(config: TuneConfig) -> Recipe:
    """The recipe of a method, from the probe or from a head at zero.

    Args:
        config: method, form, insert, b_init and head_init are read.
    """
    whitened = config.learns("bpt") and (config.form != "bilinear" or config.b_init == "whiten")
    dropout = 0.1 if config.learns("vpt") and config.insert == "deep" else 0.0  # VPT's papers
    if not config.starts_from_probe:  # as it was before; for the papers' comparisons
        return Recipe(lr=_FREE, lr_ln=1e-3, lr_head=5e-3, wd_head=0.1, dropout=dropout)
    return Recipe(
        lr=_WHITENED[config.form] if whitened else _FREE,
        lr_ln=3e-3,
        lr_head=1e-4,
        wd_head=0.0,
        dropout=dropout,
    )
