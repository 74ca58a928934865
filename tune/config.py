"""Every number of a tuning run, with its default; the CLI and TOML files fill this in."""

from __future__ import annotations

import difflib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from vptkit.backbones.merge_schedule import MERGE_ATTENTIONS, MergeAttention, merge_setting
from vptkit.backbones.timm_arguments import require_timm_arguments
from vptkit.errors import VptkitError
from vptkit.formats.manifest_schema import MULTILABEL, SINGLE, TASKS
from vptkit.formats.pooling import POOLS

from .idle_settings import why_idle
from .lora_targets import targets_of
from .recipe import Recipe, recipe_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from vptkit.formats.manifest_schema import Task
    from vptkit.formats.pooling import Pool

__all__ = ["PATHS", "TuneConfig", "config_from_mapping", "with_paths_beside"]

PATHS = ("weights", "full_data", "tensorboard")  # settings that are paths

# fmt: off
Method = Literal[
    "ln", "vpt", "bpt", "lora", "ln+vpt", "ln+bpt", "ln+lora", "lora+vpt", "lora+bpt", "ln+lora+vpt",
    "ln+lora+bpt", "linear", "auto",
]
# fmt: on
_CHOICES: dict[str, tuple[str, ...]] = {
    "method": get_args(Method),
    "task": TASKS,
    "insert": ("deep", "shallow"),
    "form": ("bilinear", "fwhiten", "twhiten"),
    "b_init": ("random", "whiten"),
    "compat": ("paper", "released"),
    "tap": ("pre_ln1", "post_ln1"),
    "pool": ("model", *POOLS),
    "norm": ("model", "before_pool", "after_pool"),
    "augment": ("none", "flip", "crop"),
    "rescale": ("none", "gamma", "beta", "both", "all"),
    "precision": ("fp32", "bf16", "fp16"),
    "class_weights": ("none", "balanced"),
    "merge_attention": MERGE_ATTENTIONS,
    "head_init": ("probe", "zero"),
    "select": ("soup", "loss", "top1", "last"),
    "calibrate": ("temperature", "none"),
    "pictures": ("page", "png", "svg", "pdf", "none"),
}
_RANGES: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    (
        "prompts rank lora_rank epochs batch_size whiten_images golden head_epochs ln_epochs shots",
        lambda v: v >= 1,
        "at least 1",
    ),
    ("patience accumulate", lambda v: v >= 1, "at least 1"),
    ("lr lr_head lr_ln lr_lora", lambda v: 0 < v < 1e30, "a positive number below 1e30"),  # AdamW's
    ("wd wd_head", lambda v: 0 <= v < 1e30, "0 or more, below 1e30"),
    ("whiten_floor lora_alpha", lambda v: 0 < v < math.inf, "a positive number"),
    ("clip tune_b_last cycles refit_epochs", lambda v: 0 <= v < math.inf, "0 or more"),
    ("seed", lambda v: 0 <= v < 2**63, "0 or more, below 2^63"),
    ("warmup val_share test_share dropout", lambda v: 0 <= v < 1, "a share in [0, 1)"),
    ("crop_scale", lambda v: 0 < v <= 1, "a share in (0, 1]"),
)
_BATCH, _LEAST_BATCH, _FEWEST_STEPS = 32, 4, 6  # images, images, steps an epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneConfig:
    """A tuning run. What is None here is filled in by `vptkit.tune.recipe`.

    Attributes:
        backbone, backbone_args, weights: of `vptkit.tune.backbone.timm_backbone.create_backbone`.
        task: each image has a "single" label, or any number of labels, "multilabel"; losses are binary
            cross-entropies then, and accuracy is mean average precision.
        budget: of method "auto", "10m" or "60 epochs" (`vptkit.tune.auto.budget`); None: no bound.
        method, insert, form, prompts (m), rank (p), b_init, tune_b_last: what is learned.
        whiten_images, whiten_floor, tap, compat: how the whitening matrices are computed.
        pool, norm: "model" takes timm's own choice for this backbone; pools: `vptkit.formats.pooling`.
        merge: tokens that each block but the last merges (`vptkit.tune.backbone.token_merging`); or of
            each block, "0,0,8,8"; 0: none.
        merge_attention: "proportional": a merged token counts as often as it has patches; "plain".
        epochs, warmup: length of training; warmup is a share of all steps. With cycles,
            `head_epochs` and `ln_epochs` count instead, and each phase warms up.
        batch_size: None takes 32, and of fewer than 192 images a sixth, from 4 on (`batch_of`).
        lora_rank, lora_alpha, lora_targets: LoRA's r, its scale alpha / r, and which linears of every
            block it changes ("q,v"; `vptkit.tune.lora_targets`).
        lr: rate of the prompts.
        wd: decay of the prompts and of LoRA's factors.
        head_init: the head begins as the "probe", the best that a head alone can make of the frozen
            features (linear probing, then tuning: Kumar et al., ICLR 2022), or at "zero", knowing
            nothing. Of `linear` the probe is all there is.
        lr_head, wd_head: of the head. Its bias has no decay.
        select: what is taken: a greedy "soup" of the three best epochs by log-loss on val
            (`vptkit.tune.phases.soup`; without val, as "last"), the best epoch by
            log-"loss" on val, the best by "top1" there (then by loss), or the "last".
        lr_ln: of LayerNorms, which have no decay.
        lr_lora: of LoRA's factors.
        cycles: LayerNorm methods: 0 learns head and norms at once for `epochs`; N alternates N
            times between the head, for `head_epochs`, and all else, for `ln_epochs`.
        rescale: LayerNorm methods: what λ multiplies, the shift of "gamma", of "beta" or of "both".
            All methods but linear: "all" puts all that is learned on the straight line between
            start and end (`vptkit.tune.methods.straight_line`). λ and the place are chosen on val.
        refit_epochs: of the head alone, after λ or that place was chosen; 0 for none.
        full_data: a fuller set of the same classes, tuned on once more for the FSR proxy.
        allow_chance: write the adapter also where nothing was learned
            (`vptkit.tune.phases.judge_training`).
        allow_outside: of `vptkit.datasets.dataset_bounds.require_inside`; given by the user alone, not by a
            file of settings.
        columns: which columns of a table are image, label and split
            (`vptkit.datasets.table_columns.parse_columns`); None: known by their names.
        skip_broken: go on without the images that cannot be read; else all of them are named, and
            nothing is trained.
        strict: an image that two splits share (`vptkit.tune.data.reading_pass.twice`) is an error, and no
            warning.
        dropout: on prompts.
        clip: bound on the gradient's norm, 0 for none.
        patience: stop after so many epochs without a better one on val; the schedule stays that of
            all epochs. Not with cycles, which end by themselves.
        class_weights: "balanced" weighs classes in the training loss by n / (C n_c).
        precision: of the backbone's matrix products; all that is learned stays fp32.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:N".
        compile: `torch.compile` the forward pass.
        accumulate: compute each batch in so many parts, for memory; the result is the same.
        recompute: keep of each block its input alone and compute the rest again in the backward pass
            (activation checkpointing), for memory; the same bytes.
        augment, crop_scale: see `vptkit.tune.data.dataset`.
        val_share, test_share: used where the data has no splits, if that gives five images a class
            (`vptkit.tune.data.splits.load_splits`); else cross-validation chooses.
        shots: training images kept of each class; None for all.
        calibrate: "temperature": the head is divided by one number, fitted to the log-loss on val,
            so that its probabilities come true (`vptkit.scores.temperature`); no answer changes.
        golden: number of validation images whose reference logits travel with the adapter.
        seed: of everything.
        name: of the adapter; None takes the output file's.
        pictures: of the training: a "page", NAME.html, of all of them; a "png", "svg" or "pdf" of each;
            "none".
        tensorboard: folder of TensorBoard's logs, of this run in a folder NAME below it; given by the
            user alone, not by a file of settings.
    """

    backbone: str
    backbone_args: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    method: Method = "auto"
    task: Task = SINGLE
    budget: str | None = None
    insert: Literal["deep", "shallow"] = "deep"
    form: Literal["bilinear", "fwhiten", "twhiten"] = "bilinear"
    prompts: int = 20
    rank: int = 20
    b_init: Literal["random", "whiten"] = "whiten"
    tune_b_last: int = 4
    lora_rank: int = 8
    lora_alpha: float = 8.0
    lora_targets: str = "q,v"
    whiten_images: int = 100
    whiten_floor: float = 1e-6
    tap: Literal["pre_ln1", "post_ln1"] = "pre_ln1"
    compat: Literal["paper", "released"] = "paper"
    pool: Literal["model"] | Pool = "model"
    norm: Literal["model", "before_pool", "after_pool"] = "model"
    merge: int | str = 0
    merge_attention: MergeAttention = "proportional"
    epochs: int = 20
    batch_size: int | None = None
    warmup: float = 0.1
    lr: float | None = None
    wd: float = 1e-3
    head_init: Literal["probe", "zero"] = "probe"
    lr_head: float | None = None
    wd_head: float | None = None
    select: Literal["soup", "loss", "top1", "last"] = "soup"
    lr_ln: float | None = None
    lr_lora: float | None = None
    cycles: int = 0
    head_epochs: int = 10
    ln_epochs: int = 10
    rescale: Literal["none", "gamma", "beta", "both", "all"] = "none"
    refit_epochs: int = 0
    full_data: Path | None = None
    allow_chance: bool = False
    allow_outside: bool = False
    columns: str | None = None
    skip_broken: bool = False
    strict: bool = False
    dropout: float | None = None
    clip: float = 1.0
    patience: int | None = None
    class_weights: Literal["none", "balanced"] = "none"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: str = "auto"
    compile: bool = False
    accumulate: int = 1
    recompute: bool = False
    augment: Literal["none", "flip", "crop"] = "flip"
    crop_scale: float = 0.5
    val_share: float = 0.15
    test_share: float = 0.15
    shots: int | None = None
    calibrate: Literal["temperature", "none"] = "temperature"
    golden: int = 8
    seed: int = 0
    name: str | None = None
    pictures: Literal["page", "png", "svg", "pdf", "none"] = "page"
    tensorboard: Path | None = None

    def __post_init__(self) -> None:
        """Check every number.

        Raises:
            VptkitError: a value is out of range; says which, what came, what was expected.
        """
        for key in PATHS:  # text will do, too
            if isinstance(getattr(self, key), str):
                object.__setattr__(self, key, Path(getattr(self, key)))
        object.__setattr__(self, "merge", merge_setting(self.merge))
        object.__setattr__(self, "lora_targets", ",".join(targets_of(self.lora_targets)))
        require_timm_arguments(self.backbone_args)
        problems = [
            f"{key} is {getattr(self, key)!r}, expected one of {', '.join(choices)}"
            for key, choices in _CHOICES.items()
            if getattr(self, key) not in choices
        ]
        for keys, holds, wanted in _RANGES:
            problems += [
                f"{key} is {getattr(self, key)}, expected {wanted}"
                for key in keys.split()
                if getattr(self, key) is not None and not holds(getattr(self, key))
            ]
        problems += self._problems_of_auto() + self._problems_of_labels()
        if not problems and not self.learns("ln"):
            problems += [
                f"{key} is {getattr(self, key)}, but method {self.method} tunes no LayerNorms"
                for key in ("cycles", "rescale", "refit_epochs", "full_data")
                if getattr(self, key) not in (0, "none", "all", None)
            ]
        if not problems and self.rescale == "all" and self.method == "linear":
            problems.append("rescale is all, but method linear tunes nothing behind its probe")
        if not problems and self.cycles and self.patience is not None:
            # in a head phase it would end the run before the norms learn
            problems.append(
                f"patience is {self.patience}, but with cycles a run ends by itself, after a cycle "
                "without a better epoch on val: leave patience away"
            )
        if not problems:
            values = {f.name: getattr(self, f.name) for f in fields(self)}
            usual = {f.name: f.default for f in fields(self)}
            problems += why_idle(values, [key for key in values if values[key] != usual[key]])
        if problems:
            raise VptkitError("settings: " + "; ".join(problems))

    def _problems_of_auto(self) -> list[str]:
        """What `auto` cannot do, and what nothing but it has."""
        if self.method != "auto":
            return [] if self.budget is None else ["budget is for method auto alone"]
        odd = {"cycles": 0, "rescale": "none", "refit_epochs": 0, "full_data": None}
        odd["head_init"] = "probe"
        return [
            f"{key} is {getattr(self, key)}, which method auto does not try: pass --method"
            for key, usual in odd.items()
            if getattr(self, key) != usual
        ]

    def _problems_of_labels(self) -> list[str]:
        """What there is for one label an image alone."""
        if self.task != MULTILABEL:
            return []
        instead = {
            "shots": "several labels an image cannot be so many of each: leave it away",
            "class_weights": "thresholds are chosen for each label: leave it away",
            "full_data": "it is for one label an image: leave it away",
        }
        problems = [
            f"{key} is {getattr(self, key)}, which task multilabel does not have: {why}"
            for key, why in instead.items()
            if getattr(self, key) not in (None, "none")
        ]
        if self.rescale in ("gamma", "beta", "both"):
            problems.append(
                f"rescale is {self.rescale}, which task multilabel does not have: pass --rescale all"
            )
        return problems

    def learns(self, part: Literal["bpt", "vpt", "ln", "lora"]) -> bool:
        """Whether that is (a part of) the method."""
        return part in self.method.split("+")

    @property
    def prompted(self) -> bool:
        """Whether the method learns prompts."""
        return self.learns("bpt") or self.learns("vpt")

    @property
    def recipe(self) -> Recipe:
        """What is taken where nothing is given."""
        return recipe_of(
            self.method,
            insert=self.insert,
            form=self.form,
            b_init=self.b_init,
            from_probe=self.starts_from_probe,
        )

    def batch_of(self, images: int) -> int:
        """Training images in a step: with few images there are six steps an epoch all the same.

        Args:
            images: of the training set.
        """
        return self.batch_size or min(max(images // _FEWEST_STEPS, _LEAST_BATCH), _BATCH)

    @property
    def batch_to_ask(self) -> int:
        """Images in a batch of what is not trained on; no more than a step computes at once."""
        return -(-(self.batch_size or _BATCH) // self.accumulate)

    @property
    def rates(self) -> tuple[float, float]:
        """Learning rates of prompts and head, defaults filled in."""
        return self.lr or self.recipe.lr, self.lr_head or self.recipe.lr_head

    @property
    def starts_from_probe(self) -> bool:
        """Whether the head begins as the linear probe."""
        return self.head_init == "probe" or self.method == "linear"

    @property
    def decay_of_head(self) -> float:
        """Weight decay of the head, default filled in."""
        return self.recipe.wd_head if self.wd_head is None else self.wd_head

    @property
    def rate_of_norms(self) -> float:
        """Learning rate of LayerNorms, default filled in."""
        return self.lr_ln or self.recipe.lr_ln

    @property
    def rate_of_lora(self) -> float:
        """Learning rate of LoRA's factors, default filled in."""
        return self.lr_lora or self.recipe.lr_lora

    @property
    def prompt_dropout(self) -> float:
        """Dropout on prompts, default filled in."""
        return self.recipe.dropout if self.dropout is None else self.dropout

    def to_json(self) -> dict[str, Any]:
        """Everything that decides the result (no paths), for the adapter file and resuming.

        As it is when read again, so that both can be compared. `config_from_mapping` takes what
        `idle_settings.without_idle` leaves of it.

        What changes it by no more than rounding is left out: a run may go on on another device.
        """
        document = asdict(self)
        del document["device"], document["compile"], document["accumulate"], document["recompute"]
        del document["weights"], document["name"], document["full_data"]
        del document["allow_outside"], document["allow_chance"]
        del document["skip_broken"], document["strict"], document["columns"]
        del document["pictures"], document["tensorboard"]
        document["lr"], document["lr_head"] = self.rates
        document["lr_ln"], document["wd_head"] = self.rate_of_norms, self.decay_of_head
        document["lr_lora"] = self.rate_of_lora
        document["dropout"] = self.prompt_dropout
        if self.task == SINGLE:
            del document["task"]  # as it was before there was another
        if not self.merge:
            del document["merge"], document["merge_attention"]
        plain: dict[str, Any] = json.loads(json.dumps(document))  # backbone_args may hold tuples
        return plain


def config_from_mapping(values: Mapping[str, Any]) -> TuneConfig:
    """A configuration from TOML or the command line.

    Without a backbone it is the one that a folder of weights names.

    Raises:
        VptkitError: an unknown or missing key, a value of the wrong type or out of range, a setting
            that does nothing with this method, be it the usual value.
    """
    types = {f.name: str(f.type) for f in fields(TuneConfig)}
    unknown = sorted(set(values) - set(types))
    if unknown:
        raise VptkitError(f"settings: unknown {_with_nearest(unknown, types)}")
    checked = {key: _typed(key, value, types[key]) for key, value in values.items()}
    if "backbone" not in values:
        if checked.get("weights") is None:
            raise VptkitError("settings: no backbone: pass --backbone NAME, a timm model name")
        from vptkit.checkpoints.proposed_backbone import named_backbone

        args = checked.get("backbone_args", {})
        named = named_backbone(None, args, checked.get("weights"))
        checked["backbone"], checked["backbone_args"] = named
    config = TuneConfig(**checked)
    if idle := why_idle(checked, sorted(checked)):
        raise VptkitError("settings: " + "; ".join(idle))
    return config


def with_paths_beside(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Settings of a file whose paths hold from the folder that the file lies in."""
    found = dict(settings)
    for key in PATHS:
        if isinstance(found.get(key), str | Path):
            found[key] = folder / found[key]
    return found


def _with_nearest(unknown: Sequence[str], known: Iterable[str]) -> str:
    """As "'epoch': epochs?"; all that are known, where none is near."""
    known = sorted(known)
    near = {key: difflib.get_close_matches(key, known, n=1) for key in unknown}
    told = [f"{key!r}" + (f": {found[0]}?" if found else "") for key, found in near.items()]
    rest = "" if all(near.values()) else f"; known are {', '.join(known)}"
    return ", ".join(told) + rest


def _typed(key: str, value: Any, declared: str) -> Any:
    if key == "merge":
        return merge_setting(value)
    if key in PATHS and isinstance(value, str | Path):
        return Path(value)
    if "float" in declared and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    kinds = {"int": int, "float": float, "str": str, "bool": bool, "Path": Path}
    kinds |= {"dict[str, Any]": dict}
    parts = [part.strip() for part in declared.split(" | ")]
    if value is None and "None" in parts:
        return None
    for part in parts:
        # true is an int to Python, but not to a reader
        if part in kinds and (
            not isinstance(value, kinds[part]) or isinstance(value, bool) != (part == "bool")
        ):
            raise VptkitError(f"settings: {key} is {value!r}, expected {part}")
    return value
