"""What each fold took out of a graph, from the backbone's geometry: for one image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .macs import folded_macs, unfolded_macs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.formats.bundle import Bundle

__all__ = ["count_text", "fold_rows"]

_MACS, _OPERATIONS = "multiply-accumulates", "elementwise operations"


def fold_rows(bundle: Bundle) -> list[dict[str, str]]:
    """One row a fold that was applied: {"fold", "saved"}.

    Elementwise operations are additions and multiplications of single numbers. "saved" is empty where
    a fold saves what cannot be told from the geometry.

    Args:
        bundle: an opened one.
    """
    macs = _macs_saved(bundle)
    plain = _operations_saved(bundle.spec)
    rows = []
    for fold in bundle.manifest["folds"]:
        text = ""
        for saved, unit in ((macs, _MACS), (plain, _OPERATIONS)):
            found = next((n for head, n in saved.items() if fold.startswith(head)), None)
            text = f"{count_text(found)} {unit}" if found else text
        rows.append({"fold": fold, "saved": text})
    return rows


def count_text(count: float) -> str:
    """As "13.6 M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f}"


def _macs_saved(bundle: Bundle) -> dict[str, int]:
    """How a fold's name begins → multiply-accumulates; what the last block saves is the rest."""
    macs: Mapping[str, Any] = bundle.manifest["macs"]
    entry = bundle.manifest["adapters"][0]
    insert, pool, prompts = (entry.get(key) for key in ("insert", "pool", "prompt_length"))
    if bundle.layout != "baked" or not {"unfolded", "graph"} <= set(macs) or pool is None:
        return {}
    count = prompts or 0
    full = folded_macs(bundle.spec, count, insert or "none", pool, "full")
    prefix = unfolded_macs(bundle.spec, count) - full
    return {
        "deep prompts": prefix,
        "shallow prompts": prefix,
        "last block": max(0, macs["unfolded"] - macs.get("unmerged", macs["graph"]) - prefix),
    }


def _operations_saved(spec: BackboneSpec) -> dict[str, int]:
    """How a fold's name begins → additions and multiplications that are gone."""
    height, width = spec.image_size
    once = spec.depth * spec.branches * spec.tokens * spec.width  # one operation on each number
    shift = 2 if spec.norm == "layer" else 1  # x / rms(x) has no shift
    norms = 1 if spec.block == "parallel" else 2
    return {
        "LayerNorm affine": shift * norms * once,
        "key bias": once,
        "value bias": once,
        "attention scale": once,
        "LayerScale": 2 * once,
        "final norm affine": shift * spec.width,
        "pixel scale": 2 * 3 * height * width,
    }
