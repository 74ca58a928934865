"""The cells of the grid of `evidence.py`: what is trained, in which order, with which settings."""

from __future__ import annotations

import itertools
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from vptkit.tune import TuneConfig, config_from_mapping
from vptkit.tune.idle_settings import without_idle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SETS = {"flowers5": 5, "caltech20": 20, "photo2sketch5": 5, "breakhis100x": 2}  # classes
RECIPES = ("vptkit", "papers")
CYCLES, PROMPTS = 3, 20
BATCH = 32  # of both papers' rates, as far as they say one
_PROMPTS = {"prompts": PROMPTS, "rank": PROMPTS}
# In the order in which the bars want them
METHODS: dict[str, dict[str, Any]] = {
    "default": {},  # no --method, nothing else: what a user gets
    "linear": {"method": "linear"},
    "LN": {"method": "ln"},
    "VPT-deep": {"method": "vpt", **_PROMPTS},
    "BPT-deep bilinear": {"method": "bpt", **_PROMPTS},
    "LN+BPT": {"method": "ln+bpt", **_PROMPTS},
    "LN+VPT": {"method": "ln+vpt", **_PROMPTS},
    "auto": {"method": "auto", "budget": "200 epochs"},  # all of its candidates
    "VPT-shallow": {"method": "vpt", "insert": "shallow", **_PROMPTS},
    "BPT-shallow": {"method": "bpt", "insert": "shallow", **_PROMPTS},
    "BPT-deep fWhiten": {"method": "bpt", "form": "fwhiten", **_PROMPTS},
    "BPT-deep tWhiten": {"method": "bpt", "form": "twhiten", **_PROMPTS},
    "LN cyclic": {"method": "ln", "cycles": CYCLES},
    "LN cyclic + λ": {"method": "ln", "cycles": CYCLES, "rescale": "gamma"},
    "full fine-tuning": {"method": "linear"},  # its data and batches; `evidence_full.py`
}
SINGLE = tuple(name for name in METHODS if name not in ("default", "auto", "full fine-tuning"))
ONCE = ("linear", "full fine-tuning")  # the same in both recipes; trained as "vptkit"
_OF_VPTKIT = ("default", "auto", *ONCE)
BACKBONES: dict[str, dict[str, Any]] = {
    "vit-ti": {  # supervised
        "backbone": "vit_tiny_patch16_224",
        "backbone_args": {"img_size": 112},
        "weights": "weights/vit_tiny_patch16_224.augreg_in21k_ft_in1k/model.safetensors",
    },
    "vit-s": {  # self-supervised, then saliency: poor frozen features
        "backbone": "vit_small_patch14_dinov2",
        "backbone_args": {"img_size": 84},
        "weights": "weights/vit_small_patch14_dinov2.saliency/model.safetensors",
    },
    "vit-b": {"backbone": "vit_base_patch16_224"},  # its weights are named by --weights
}

# ---- the papers' own settings; `methods` is the team's dossier -----------------------------------
_BPT = {  # `methods` 1.7, MAE CUB deep: one rate for all, and a strong decay of the head
    "lr": 5e-2,
    "lr_head": 5e-2,
    "wd": 5e-3,
    "wd_head": 0.5,
    "dropout": 0.0,
    "augment": "crop",
    "crop_scale": 0.08,
    "tune_b_last": 4,
}
_VPT = {  # `methods` 7.2, with AdamW instead of SGD, and so a rate of ours
    "lr": 5e-3,
    "lr_head": 5e-3,
    "wd": 1e-3,
    "wd_head": 1e-3,
    "augment": "crop",
    "crop_scale": 0.77,  # 224 of 256 pixels, both ways
}
_LN = {"lr_ln": 1e-3, "lr_head": 1e-3, "wd_head": 0.0, "augment": "flip"}  # `methods` 4.3
_ALL = {"head_init": "zero", "select": "top1", "clip": 0.0, "warmup": 0.1}
NOTES = {
    "all": "published for 100 epochs (epochs: as the cell says), 50 or more prompts and ranks of ViT-B and "
    "larger (here 20 of 192 or 384 numbers); the best epoch by top-1 on val, where BPT's code took "
    "test; without val by cross-validation; rates × batch / 32; head: clamped normal, bias 0",
    "bpt": "rates of the MAE scripts (5e-2), also on the supervised ViT-Ti, where their scripts have 5e-3 "
    "to 2e-2 and a head's decay of 3 to 10: not taken; compat is paper: the equations, not the "
    "released code's averages; EMA, which they track and do not report, is left out",
    "vpt": "SGD with momentum and its grid of rates (0.1 to 50, × batch / 256) cannot be expressed: "
    "AdamW at 5e-3 for prompts and head; random crop of 224 from 256 pixels as a part of at least "
    "77 % of the area; the head's bias begins at 0, not at -4.6",
    "ln": "no rate, schedule or number of cycles is published: the dossier's; their wider features and "
    "feature augmentation are not described anywhere and left out; λ by val, where they took test",
}


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One training; shots 0 is all of the training images."""

    recipe: str
    backbone: str
    data: str
    shots: int
    method: str
    seed: int
    epochs: int = 20

    @property
    def key(self) -> tuple[Any, ...]:
        """What a record is found by."""
        return astuple(self)

    @property
    def name(self) -> str:
        """Of its adapter's file, without a suffix."""
        parts = (self.recipe, self.backbone, self.data, self.shots or "all", self.method)
        name = "-".join(map(str, (*parts, self.seed, self.epochs)))
        return name.replace(" ", "_").replace("λ", "lambda")


def grid(
    *,
    seeds: Sequence[int],
    backbones: Sequence[str],
    recipes: Sequence[str],
    shots: Sequence[int],
    methods: Sequence[str],
    sets: Sequence[str],
    epochs: int,
) -> Iterator[Cell]:
    """Cells in the order in which they are trained: seed by seed, and in a seed row by row of a table.

    Left out are those that cannot be: λ without val, the papers' `default`; and what is the same in
    both recipes is there once.
    """
    chosen = [name for name in METHODS if name in methods]  # the bars' order, not the caller's
    for seed, backbone, recipe, few, method, data in itertools.product(
        seeds, backbones, recipes, shots, chosen, sets
    ):
        if recipe == "papers" and method in _OF_VPTKIT:
            continue
        if few and method == "LN cyclic + λ":
            continue
        yield Cell(recipe, backbone, data, few, method, seed, epochs)


def words_of(cell: Cell) -> dict[str, Any]:
    """The settings that the cell passes, but for backbone, seed and device."""
    words = {**METHODS[cell.method], "epochs": cell.epochs}
    if (
        "cycles" in words
    ):  # as many epochs of the norms in all as the others have, or up to two more
        part = -(-cell.epochs // CYCLES)
        words |= {"head_epochs": part, "ln_epochs": part}
    if cell.recipe == "papers":
        words |= _published(words["method"].split("+"), words.get("insert", "deep"))
        usual = TuneConfig(backbone="").batch_of
        size = usual(cell.shots * SETS[cell.data]) if cell.shots else BATCH
        rates = {
            key: words[key] * size / BATCH for key in ("lr", "lr_head", "lr_ln") if key in words
        }
        words |= {"batch_size": size, **rates}
    return words


def _published(parts: list[str], insert: str) -> dict[str, Any]:
    """The papers' settings of a method, or of two together (which is in neither paper)."""
    words: dict[str, Any] = {**_ALL}
    if "ln" in parts:
        words |= _LN
    if "vpt" in parts:
        words |= _VPT
    if (
        "bpt" in parts
    ):  # deep as released: B from whitening; shallow as in the paper: random, all learned
        words |= {**_BPT, "b_init": "whiten" if insert == "deep" else "random"}
    return words


def settings_of(
    cell: Cell, shared: Path, weights: Path | None = None, device: str = "auto"
) -> TuneConfig:
    """The configuration of a cell.

    Args:
        cell: whose.
        shared: the folder with `data` and `weights`.
        weights: of a backbone whose weights do not lie there.
        device: of `TuneConfig`.

    Raises:
        ValueError: no weights: random ones are no evidence.
    """
    base = dict(BACKBONES[cell.backbone])
    path = shared / base["weights"] if "weights" in base else weights
    if path is None:
        raise ValueError(f"{cell.backbone} wants --weights FILE")
    fixed = {"weights": path, "seed": cell.seed, "device": device}
    return config_from_mapping(without_idle({**base, **fixed, **words_of(cell)}))


def settings_table(epochs: int, shots: int = 0) -> str:
    """Markdown: what each recipe passes, and what of the papers cannot be passed."""
    lines = ["| recipe | method | passed beside backbone, weights, seed |", "| --- | --- | --- |"]
    every = {"seeds": [0], "backbones": ["vit-ti"], "shots": [shots], "sets": ["flowers5"]}
    for cell in grid(**every, recipes=RECIPES, methods=list(METHODS), epochs=epochs):
        words = ", ".join(f"{key} {value}" for key, value in words_of(cell).items())
        if cell.method == "full fine-tuning":
            words = f"AdamW on all numbers, epochs {epochs}: `evidence_full.py`"
        lines.append(f"| {cell.recipe} | {cell.method} | {words} |")
    lines += ["", "Where `papers` is not what was published:", ""]
    lines += [f"- {name}: {text}." for name, text in NOTES.items()]
    return "\n".join(lines)
