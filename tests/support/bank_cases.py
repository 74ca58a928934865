"""Adapters of every kind that a bank takes, on one tiny backbone, and their reference answers."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tests.support.strategies import Case, Setup, build, random_adapter
from vptkit.formats.adapter import write_adapter
from vptkit.formats.tensor_file import write_tensors
from vptkit.tune.backbone.reference import adapter_logits

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.formats.adapter import Adapter

__all__ = ["KINDS", "Family", "family", "write_family"]

# name → how the adapter differs from the setup, and its number of classes
KINDS: dict[str, tuple[dict[str, Any], int]] = {
    "bilinear": ({"prompts": 3, "rank": 2}, 5),
    "whitened": ({"prompts": 6, "rank": None}, 2),
    "norms": ({"insert": "none", "tuned_norms": True}, 4),
    "both": ({"prompts": 1, "tuned_norms": True}, 5),
    "linear": ({"insert": "none"}, 3),
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """Adapters of one backbone, float32."""

    case: Case
    adapters: dict[str, Adapter]
    answers: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def reference(self, name: str) -> NDArray[np.float64]:
        """The reference's answer of one adapter: float64 [B, C]."""
        if name not in self.answers:
            self.answers[name] = self._reference(name)
        return self.answers[name]

    def _reference(self, name: str) -> NDArray[np.float64]:
        with torch.no_grad():
            model = copy.deepcopy(self.case.model)
            pixels = torch.from_numpy(self.case.pixels)
            return adapter_logits(model, self.adapters[name], pixels).numpy()


@functools.lru_cache(maxsize=8)
def family(setup: Setup | None = None, kinds: tuple[str, ...] = tuple(KINDS)) -> Family:
    """Make adapters of some kinds for the backbone of a setup."""
    base = replace(setup or Setup(), tuned_norms=False, insert="deep")
    case = build(base)
    rng = np.random.default_rng(base.seed + 1)
    adapters = {}
    for kind in kinds:
        changes, classes = KINDS[kind]
        sha256 = case.adapter.backbone.sha256
        made = random_adapter(case.spec, replace(base, **changes), rng, sha256=sha256)
        tensors = {k: v.astype(np.float32) for k, v in made.tensors.items()}
        for name in ("head.weight", "head.bias"):
            tensors[name] = tensors[name][:classes]
        labels = tuple(f"{kind} {i}" for i in range(classes))
        adapters[kind] = replace(made, name=kind, labels=labels, tensors=tensors)
    return Family(case=case, adapters=adapters)


def write_family(members: Family, folder: Path, *, golden: bool = True) -> dict[str, Path]:
    """Write adapters and `weights.safetensors`: name → path."""
    paths = {}
    for name, adapter in members.adapters.items():
        tensors = dict(adapter.tensors)
        if golden:
            tensors["golden.images"] = members.case.images
            tensors["golden.logits"] = members.reference(name).astype(np.float32)
        paths[name] = folder / f"{name}.safetensors"
        write_adapter(paths[name], replace(adapter, tensors=tensors))
    paths["weights"] = folder / "weights.safetensors"
    single = {k: v.astype(np.float32) for k, v in members.case.weights.items()}
    write_tensors(paths["weights"], single)
    return paths
