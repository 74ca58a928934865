"""A frozen backbone with something learnable on it: prompts, a head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from vptkit.errors import VptkitError

from .prompted import fast_features
from .prompts import PromptConfig, Prompts, needs_whitening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vptkit.backbone import BackboneSpec

    from .config import TuneConfig

__all__ = ["Tuned", "parameter_groups", "prompt_config"]

Insert = Literal["deep", "shallow", "none"]
Pool = Literal["token", "avg", "avg_prompts", "map"]
Norm = Literal["before_pool", "after_pool"]


class Tuned(nn.Module):
    """Backbone (frozen, not a submodule: never saved), prompts and head."""

    def __init__(
        self,
        backbone: Any,
        spec: BackboneSpec,
        config: TuneConfig,
        classes: int,
        whitening: Sequence[Tensor] | None,
    ) -> None:
        """Draw the initial values from the configuration's seed.

        Args:
            backbone: a frozen timm model.
            spec: its description.
            config: of the run.
            classes: C.
            whitening: W of each site [d, d], if the prompts' form needs them.
        """
        super().__init__()
        self._frozen = [backbone]  # in a list, so that torch does not register it
        self.insert: Insert = "none" if config.method == "linear" else config.insert
        self.pool, self.norm = pooling(spec, config)
        generator = torch.Generator().manual_seed(config.seed)
        self.prompts: Prompts | None = None
        if config.method != "linear":
            self.prompts = Prompts(
                prompt_config(config),
                width=spec.width,
                patch=spec.patch_size,
                sites=spec.depth if config.insert == "deep" else 1,
                whitening=whitening or (),
                generator=generator,
            )
        self.head = nn.Linear(spec.width, classes)
        with torch.no_grad():  # the papers' head: truncated normal, no bias
            self.head.weight.normal_(0.0, 0.02, generator=generator).clamp_(-0.04, 0.04)
            self.head.bias.zero_()

    @property
    def backbone(self) -> Any:
        """The frozen timm model."""
        return self._frozen[0]

    def features(self, pixels: Tensor) -> Tensor:
        """Float [B, 3, H, W] → [B, d]."""
        prompts = self.prompts() if self.prompts is not None else []
        return fast_features(self.backbone, pixels, prompts, self.insert, self.pool, self.norm)

    def forward(self, pixels: Tensor) -> Tensor:
        """Float [B, 3, H, W] → logits [B, C]."""
        return self.head(self.features(pixels))  # type: ignore[no-any-return]

    def trainable(self) -> tuple[int, int]:
        """Learned numbers: (all, without the head)."""
        prompts = [] if self.prompts is None else self.prompts.parameters()
        count = sum(p.numel() for p in prompts if p.requires_grad)
        return count + sum(p.numel() for p in self.head.parameters()), count


def pooling(spec: BackboneSpec, config: TuneConfig) -> tuple[Pool, Norm]:
    """Pool and position of the final norm, "model" resolved to timm's own.

    Raises:
        VptkitError: the backbone has no class token to pool.
    """
    pool: Pool = spec.pool if config.pool == "model" else config.pool
    if pool == "token" and not spec.class_token:
        raise VptkitError("pool is token, but the backbone has no class token: pass --pool avg")
    if pool == "map" and spec.attention_pool is None:
        raise VptkitError("pool is map, but the backbone has no attention pooling: pass --pool avg")
    native: Norm = "after_pool" if spec.final_norm == "fc_norm" else "before_pool"
    return pool, native if config.norm == "model" else config.norm


def prompt_config(config: TuneConfig) -> PromptConfig:
    """What is learned, for the methods with prompts."""
    return PromptConfig(
        form="free" if config.method == "vpt" else config.form,
        length=config.prompts,
        rank=config.rank,
        b_init=config.b_init,
        tune_b_last=config.tune_b_last,
        released=config.compat == "released",
        dropout=config.prompt_dropout,
    )


def wants_whitening(config: TuneConfig) -> bool:
    """Whether a run needs whitening matrices."""
    return config.method == "bpt" and needs_whitening(prompt_config(config))


def parameter_groups(model: Tuned, config: TuneConfig) -> list[dict[str, Any]]:
    """AdamW's groups: prompts, head weight, head bias (no decay); `methods` 1.7."""
    lr, lr_head = config.rates
    groups: list[dict[str, Any]] = [
        {"params": [model.head.weight], "lr": lr_head, "weight_decay": config.wd_head},
        {"params": [model.head.bias], "lr": lr_head, "weight_decay": 0.0},
    ]
    if model.prompts is not None:
        learned = [p for p in model.prompts.parameters() if p.requires_grad]
        groups.insert(0, {"params": learned, "lr": lr, "weight_decay": config.wd})
    for group in groups:
        group["base_lr"] = group["lr"]
    return groups
