"""A training step as a call: of every method, as `vptkit tune` makes it, and as others would.

By whom: "vptkit"; "reference", the same parameters in plain torch (`vptkit.tune.backbone.reference`:
timm's own blocks, prompts as tokens); "PEFT", its LoRA on the same timm model. Weights are
random, which decides nothing about time and memory.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import timm
import torch
from torch.nn import functional as F

from vptkit.tune import TuneConfig
from vptkit.tune.backbone.reference import features
from vptkit.tune.backbone.spec_from_timm import spec_from_model
from vptkit.tune.methods.tuned_model import Tuned, parameter_groups, wants_whitening
from vptkit.tune.training.device import place
from vptkit.tune.training.optimizer_step import Batch, Stepper

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["CLASSES", "FULL", "METHODS", "VARIANTS", "Form", "plain_step", "step_of", "tuned_step"]

CLASSES = 10
FULL = "full fine-tuning"
METHODS: dict[str, dict[str, Any]] = {
    "linear": {"method": "linear"},  # of features that are computed once
    "LN": {"method": "ln"},
    "VPT-deep": {"method": "vpt"},
    "VPT-shallow": {"method": "vpt", "insert": "shallow"},
    "BPT-deep bilinear": {"method": "bpt"},
    "BPT-deep fWhiten": {"method": "bpt", "form": "fwhiten"},
    "BPT-deep tWhiten": {"method": "bpt", "form": "twhiten"},
    "BPT-shallow": {"method": "bpt", "insert": "shallow"},
    "LN+BPT": {"method": "ln+bpt"},
    "LoRA q,v": {"method": "lora"},
    "LoRA q,k,v": {"method": "lora", "lora_targets": "q,k,v"},
    "LoRA all": {"method": "lora", "lora_targets": "q,k,v,proj,fc1,fc2"},
    FULL: {},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "recompute": {"recompute": True},
    "bf16, recompute": {"precision": "bf16", "recompute": True},
    "accumulate 4": {"accumulate": 4},
    "accumulate 16": {"accumulate": 16},
    "merge 12": {"merge": 12},
}
_WITH_PEFT = ("LoRA q,k,v", "LoRA all")
# BPT's own is VPT's; of shallow prompts vptkit's step is the reference
_WITH_REFERENCE = ("LN", "VPT-deep", *_WITH_PEFT, FULL)


class Form(NamedTuple):
    """One of the steps that are compared.

    Attributes:
        method: of `METHODS`.
        by: "vptkit", "reference" or "PEFT"; of full fine-tuning "reference" alone.
        variant: of `VARIANTS`; by others than vptkit only precisions.
    """

    method: str
    by: str
    variant: str

    @property
    def exists(self) -> bool:
        """Whether there is such a step, and whether it is another than its neighbours."""
        if self.by == "vptkit":
            return self.method != FULL and (self.method != "linear" or self.variant == "fp32")
        if set(VARIANTS[self.variant]) - {"precision"}:
            return False  # what only vptkit has
        return self.method in (_WITH_PEFT if self.by == "PEFT" else _WITH_REFERENCE)


def step_of(
    form: Form, backbone: str, images: int, settings: Mapping[str, Any]
) -> Callable[[], object]:
    """A call that makes one training step.

    Args:
        form: which.
        backbone: timm's name; at its own image size.
        images: of a batch.
        settings: of `TuneConfig`, for methods that have them: prompts, rank.
    """
    torch.manual_seed(0)
    if form.method == FULL or form.by == "PEFT":
        whole: Any = timm.create_model(backbone, num_classes=CLASSES).train()
        if form.by == "PEFT":
            whole = _by_peft(whole, METHODS[form.method])
        precision = VARIANTS[form.variant].get("precision", "fp32")
        return plain_step(whole, CLASSES, images, precision)
    given = {**METHODS[form.method], **VARIANTS[form.variant]}
    if given["method"] in ("vpt", "bpt", "ln+bpt"):
        given["prompts"] = settings["prompts"]
    if "bpt" in given["method"] and "form" not in given:
        given["rank"] = settings["rank"]
    model = timm.create_model(backbone, num_classes=0).eval().requires_grad_(requires_grad=False)
    tuned, step = tuned_step(model, TuneConfig(backbone=backbone, **given), CLASSES, images)
    if form.by == "reference":
        tuned.compute = _by_reference
    return step


def tuned_step(
    model: Any, config: TuneConfig, classes: int, images: int
) -> tuple[Tuned, Callable[[], object]]:
    """A model that learns as `vptkit tune` has it, and a call that makes one step of random images."""
    spec = spec_from_model(model, config.backbone)
    matrices = [torch.eye(spec.width)] * spec.depth if wants_whitening(config) else None
    tuned = Tuned(model, spec, config, classes, matrices).train()
    place(tuned, torch.device("cpu"), config)
    from_features = config.method == "linear"
    optimizer = torch.optim.AdamW(parameter_groups(tuned, config))
    stepper = Stepper(tuned, optimizer, config, from_features=from_features)
    inputs = torch.randn(images, *((spec.width,) if from_features else (3, *spec.image_size)))
    batch = Batch(inputs, torch.randint(classes, (images,)), images)
    return tuned, functools.partial(stepper.step, batch, 0)


def _by_reference(*arguments: Any) -> torch.Tensor:
    """The arguments are `fast_features`'s."""
    model, pixels, prompts, insert, pool, norm, merging, _ = arguments
    return features(model, pixels, prompts, insert, pool, norm, merging=merging)


def plain_step(
    model: Any, classes: int, images: int, precision: str = "fp32"
) -> Callable[[], object]:
    """As `tuned_step`, of a timm model's own forward pass: all that has gradients learns.

    Args:
        model: with a head.
        classes, images: of the batch, which is random.
        precision: of the forward pass, fp32 or bf16.
    """
    height, width = model.patch_embed.img_size
    pixels, targets = torch.randn(images, 3, height, width), torch.randint(classes, (images,))
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(pixels)
        F.cross_entropy(logits.float(), targets).backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()

    return step


def _by_peft(model: Any, settings: Mapping[str, Any]) -> Any:
    """PEFT's model of the same rank and targets (of a fused linear, one pair for all three)."""
    from peft import LoraConfig, get_peft_model

    rest = [name for name in ("proj", "fc1", "fc2") if name in settings["lora_targets"].split(",")]
    found = [n for n, _ in model.named_modules() if n.endswith(("qkv", *(f".{r}" for r in rest)))]
    targets = [name for name in found if name.startswith("blocks.")]
    config = LoraConfig(r=8, lora_alpha=8, target_modules=targets, modules_to_save=["head"])
    return get_peft_model(model, config)
