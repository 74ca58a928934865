"""Every number of a tuning run, with its default; the CLI and TOML files fill this in."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vptkit.errors import VptkitError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["TuneConfig", "config_from_mapping"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "method": ("bpt", "vpt", "linear"),
    "insert": ("deep", "shallow"),
    "form": ("bilinear", "fwhiten", "twhiten"),
    "b_init": ("random", "whiten"),
    "compat": ("paper", "released"),
    "tap": ("pre_ln1", "post_ln1"),
    "pool": ("model", "token", "avg", "avg_prompts", "map"),
    "norm": ("model", "before_pool", "after_pool"),
    "augment": ("none", "flip", "crop"),
}
_RANGES: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    (
        "prompts rank epochs batch_size whiten_images golden",
        lambda v: v >= 1,
        "at least 1",
    ),
    ("lr lr_head", lambda v: 0 < v < 1e30, "a positive number below 1e30"),  # AdamW's bound
    ("wd wd_head", lambda v: 0 <= v < 1e30, "0 or more, below 1e30"),
    ("whiten_floor", lambda v: 0 < v < math.inf, "a positive number"),
    ("clip tune_b_last", lambda v: 0 <= v < math.inf, "0 or more"),
    ("seed", lambda v: 0 <= v < 2**63, "0 or more, below 2^63"),
    ("warmup val_share test_share dropout", lambda v: 0 <= v < 1, "a share in [0, 1)"),
    ("crop_scale", lambda v: 0 < v <= 1, "a share in (0, 1]"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneConfig:
    """A tuning run. The defaults were chosen on validation splits (`docs/results.md`).

    Attributes:
        backbone, backbone_args, weights: of `vptkit.tune.backbone.create_backbone`.
        method, insert, form, prompts (m), rank (p), b_init, tune_b_last: what is learned.
        whiten_images, whiten_floor, tap, compat: how the whitening matrices are computed.
        pool, norm: "model" takes timm's own choice for this backbone.
        epochs, batch_size, warmup: length of training; warmup is a share of all steps.
        lr, wd: rate and decay of the prompts; None takes the method's default.
        lr_head, wd_head: of the head. The head's bias has no decay.
        dropout: on prompts; None: 0.1 for vpt deep, else 0.
        clip: bound on the gradient's norm, 0 for none.
        augment, crop_scale: see `vptkit.tune.data`.
        val_share, test_share: used where the data has no train/ and val/ folders.
        golden: number of validation images whose reference logits travel with the adapter.
        seed: of everything.
        name: of the adapter; None takes the output file's.
    """

    backbone: str
    backbone_args: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    method: Literal["bpt", "vpt", "linear"] = "bpt"
    insert: Literal["deep", "shallow"] = "deep"
    form: Literal["bilinear", "fwhiten", "twhiten"] = "bilinear"
    prompts: int = 50
    rank: int = 50
    b_init: Literal["random", "whiten"] = "random"
    tune_b_last: int = 4
    whiten_images: int = 100
    whiten_floor: float = 1e-6
    tap: Literal["pre_ln1", "post_ln1"] = "pre_ln1"
    compat: Literal["paper", "released"] = "paper"
    pool: Literal["model", "token", "avg", "avg_prompts", "map"] = "model"
    norm: Literal["model", "before_pool", "after_pool"] = "model"
    epochs: int = 20
    batch_size: int = 32
    warmup: float = 0.1
    lr: float | None = None
    wd: float = 1e-3
    lr_head: float | None = None
    wd_head: float = 0.1
    dropout: float | None = None
    clip: float = 1.0
    augment: Literal["none", "flip", "crop"] = "flip"
    crop_scale: float = 0.5
    val_share: float = 0.15
    test_share: float = 0.15
    golden: int = 8
    seed: int = 0
    name: str | None = None

    def __post_init__(self) -> None:
        """Check every number.

        Raises:
            VptkitError: a value is out of range; says which, what came, what was expected.
        """
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
        if problems:
            raise VptkitError("settings: " + "; ".join(problems))

    @property
    def rates(self) -> tuple[float, float]:
        """Learning rates of prompts and head, defaults filled in.

        Chosen on validation splits (`docs/results.md`).
        """
        return self.lr or 5e-3, self.lr_head or (5e-2 if self.method == "linear" else 5e-3)

    @property
    def prompt_dropout(self) -> float:
        """Dropout on prompts, default filled in (VPT's papers: 0.1 if deep)."""
        if self.dropout is not None:
            return self.dropout
        return 0.1 if (self.method, self.insert) == ("vpt", "deep") else 0.0

    def to_json(self) -> dict[str, Any]:
        """Everything that decides the result (no paths), for the adapter file and resuming."""
        document = asdict(self)
        del document["weights"], document["name"]
        document["lr"], document["lr_head"] = self.rates
        document["dropout"] = self.prompt_dropout
        return document


def config_from_mapping(values: Mapping[str, Any]) -> TuneConfig:
    """A configuration from TOML or the command line.

    Raises:
        VptkitError: an unknown or missing key, a value of the wrong type or out of range.
    """
    types = {f.name: str(f.type) for f in fields(TuneConfig)}
    unknown = sorted(set(values) - set(types))
    if unknown:
        raise VptkitError(f"settings: unknown {unknown}; known are {sorted(types)}")
    if "backbone" not in values:
        raise VptkitError("settings: no backbone: pass --backbone NAME, a timm model name")
    checked = {key: _typed(key, value, types[key]) for key, value in values.items()}
    return TuneConfig(**checked)


def _typed(key: str, value: Any, declared: str) -> Any:
    if key == "weights" and isinstance(value, str | Path):
        return Path(value)
    if "float" in declared and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    kinds = {"int": int, "float": float, "str": str, "Path": Path, "dict[str, Any]": dict}
    parts = [part.strip() for part in declared.split(" | ")]
    if value is None and "None" in parts:
        return None
    for part in parts:
        if part in kinds and (not isinstance(value, kinds[part]) or isinstance(value, bool)):
            raise VptkitError(f"settings: {key} is {value!r}, expected {part}")
    return value
