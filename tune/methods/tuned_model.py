"""A frozen backbone with something learnable on it: prompts, LayerNorms, low-rank factors, a head."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from vptkit.backbones.merge_schedule import (
    TokenMerging,
    merge_problems,
    merge_schedule,
    parse_merge,
)
from vptkit.errors import BackboneError, VptkitError
from vptkit.formats.pooling import head_inputs, reads_class_token
from vptkit.tune.backbone.prefix_forward import fast_features
from vptkit.tune.lora_targets import targets_of

from .layer_norms import LayerNorms, norm_names
from .lora import Lora, lora_sites
from .prompts import PromptConfig, Prompts, needs_whitening

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.formats.pooling import Pool
    from vptkit.tune.config import TuneConfig

__all__ = ["Tuned", "parameter_groups", "prompt_config"]

Insert = Literal["deep", "shallow", "none"]
Norm = Literal["before_pool", "after_pool"]
Part = Literal["all", "head", "body"]  # what learns in a phase; "body" is all but the head


class Tuned(nn.Module):
    """Backbone (frozen, not a submodule: never saved), prompts, LayerNorms, factors and head."""

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
        self.insert: Insert = config.insert if config.prompted else "none"
        self.pool, self.norm = pooling(spec, config)
        self.merging = merging_of(spec, config)
        self.layer_norms: LayerNorms | None = None
        if config.learns("ln"):
            self.layer_norms = LayerNorms(backbone, norm_names(spec, self.pool))
            backbone = self.layer_norms.backbone
        generator = torch.Generator().manual_seed(config.seed)
        self.prompts: Prompts | None = None
        if config.prompted:
            self.prompts = Prompts(
                prompt_config(config),
                width=spec.width,
                patch=spec.patch_size,
                sites=spec.depth if config.insert == "deep" else 1,
                whitening=whitening or (),
                generator=generator,
            )
        self.head = nn.Linear(head_inputs(self.pool, spec.width), classes)
        with torch.no_grad():  # the papers' head: truncated normal, no bias
            self.head.weight.normal_(0.0, 0.02, generator=generator).clamp_(-0.04, 0.04)
            self.head.bias.zero_()
        self.lora: Lora | None = None
        if config.learns("lora"):  # drawn last: what is drawn for prompts and head stays the same
            self.lora = Lora(
                backbone,
                lora_sites(spec, targets_of(config.lora_targets)),
                rank=config.lora_rank,
                alpha=config.lora_alpha,
                generator=generator,
            )
            backbone = self.lora.backbone
        self._frozen = [backbone]  # in a list, so that torch does not register it
        # `vptkit.tune.training.device.place` puts mixed precision and a compiled forward pass in these
        self.autocast: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
        self.compute: Callable[..., Tensor] = fast_features
        self._recompute = config.recompute
        parts = (self.prompts, self.layer_norms, self.lora)
        learned = [p for part in parts if part is not None for p in part.parameters()]
        self._body = [p for p in learned if p.requires_grad]

    @property
    def backbone(self) -> Any:
        """The timm model: frozen, or with the learned LayerNorms and factors in it."""
        return self._frozen[0]

    def features(self, pixels: Tensor) -> Tensor:
        """Float [B, 3, H, W] → [B, d], or [B, 2 d] (`head_inputs`)."""
        prompts = self.prompts() if self.prompts is not None else []  # never in half precision
        return self._computed(pixels, prompts, self.insert)

    def frozen_features(self, pixels: Tensor) -> Tensor:
        """As `features`, of the backbone alone, without prompts."""
        return self._computed(pixels, [], "none")

    def _computed(self, pixels: Tensor, prompts: list[Tensor], insert: Insert) -> Tensor:
        with self.autocast():
            how = insert, self.pool, self.norm, self.merging, self._recompute
            f = self.compute(self.backbone, pixels, prompts, *how)
        return f.to(self.head.weight.dtype)

    def forward(self, pixels: Tensor) -> Tensor:
        """Float [B, 3, H, W] → logits [B, C]."""
        return self.head(self.features(pixels))  # type: ignore[no-any-return]

    def trainable(self) -> tuple[int, int]:
        """Learned numbers: (all, without the head)."""
        count = sum(p.numel() for p in self._body)
        return count + sum(p.numel() for p in self.head.parameters()), count

    @torch.no_grad()
    def divide_logits(self, temperature: float) -> None:
        """Fold a temperature into the head: every logit is divided by it."""
        self.head.weight.div_(temperature)
        self.head.bias.div_(temperature)

    def learn(self, part: Part) -> None:
        """Let all learn, or the head alone, or the body (all but the head) alone."""
        for parameter in self._body:
            parameter.requires_grad_(part != "head")
        self.head.requires_grad_(part != "body")


def pooling(spec: BackboneSpec, config: TuneConfig) -> tuple[Pool, Norm]:
    """Pool and position of the final norm, "model" resolved to timm's own.

    Raises:
        VptkitError: the backbone has no class token to pool.
    """
    pool: Pool = spec.pool if config.pool == "model" else config.pool
    if reads_class_token(pool) and not spec.class_token:
        raise VptkitError(f"pool is {pool}, but the backbone has no class token: pass --pool avg")
    if pool == "map" and spec.attention_pool is None:
        raise VptkitError("pool is map, but the backbone has no attention pooling: pass --pool avg")
    native: Norm = "after_pool" if spec.final_norm == "fc_norm" else "before_pool"
    return pool, native if config.norm == "model" else config.norm


def merging_of(spec: BackboneSpec, config: TuneConfig) -> TokenMerging | None:
    """How tokens are merged while this adapter learns, and whenever it is used.

    Raises:
        BackboneError: the backbone has a feature with which that is not known, by its name.
        VptkitError: the schedule is not one for it.
    """
    if not config.merge:
        return None
    asked = parse_merge(str(config.merge))
    found = TokenMerging(schedule=merge_schedule(asked, spec), attention=config.merge_attention)
    if problems := merge_problems(found, spec):
        raise BackboneError(f"{config.backbone}: {'; '.join(problems)}; or leave --merge away")
    return found if found.merged else None


def prompt_config(config: TuneConfig) -> PromptConfig:
    """What is learned, for the methods with prompts."""
    return PromptConfig(
        form="free" if config.learns("vpt") else config.form,
        length=config.prompts,
        rank=config.rank,
        b_init=config.b_init,
        tune_b_last=config.tune_b_last,
        released=config.compat == "released",
        dropout=config.prompt_dropout,
    )


def wants_whitening(config: TuneConfig) -> bool:
    """Whether a run needs whitening matrices."""
    return config.learns("bpt") and needs_whitening(prompt_config(config))


def parameter_groups(model: Tuned, config: TuneConfig, part: Part = "all") -> list[dict[str, Any]]:
    """AdamW's groups: prompts, LayerNorms (no decay), factors, head weight, head bias (no decay).

    Args:
        model: whose parameters.
        config: rates and decays (`methods` 1.7, 4.3).
        part: of the model that learns in this phase.
    """
    lr, lr_head = config.rates
    groups: list[dict[str, Any]] = []
    if model.prompts is not None and part != "head":
        learned = [p for p in model.prompts.parameters() if p.requires_grad]
        groups.append({"name": "prompts", "params": learned, "lr": lr, "weight_decay": config.wd})
    if model.layer_norms is not None and part != "head":
        norms = list(model.layer_norms.parameters())
        rate = config.rate_of_norms
        groups.append({"name": "norms", "params": norms, "lr": rate, "weight_decay": 0.0})
    if model.lora is not None and part != "head":
        factors = list(model.lora.parameters())
        rate = config.rate_of_lora
        groups.append({"name": "lora", "params": factors, "lr": rate, "weight_decay": config.wd})
    if part != "body":
        for value, decay in ((model.head.weight, config.decay_of_head), (model.head.bias, 0.0)):
            groups.append({"name": "head", "params": [value], "lr": lr_head, "weight_decay": decay})
    for group in groups:
        group["base_lr"] = group["lr"]
    return groups
