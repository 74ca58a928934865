"""How `vptkit run` ends: what it says in the end, and what it refuses before it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.errors import BundleError, DataError
from vptkit.shown_text import shown

if TYPE_CHECKING:
    from pathlib import Path

    from vptkit.runtime.bulk.prediction_writers import Delivered

__all__ = ["require_all", "require_outputs", "verdict"]


def require_outputs(
    bundle: Any, save: Path | None, features: Path | None, *, as_json: bool
) -> None:
    """Refuse what a bundle does not give, before an image is read."""
    if features is not None:
        bundle.require_output("features")
    if features is None and "logits" not in bundle.outputs:
        raise BundleError(
            f"{bundle.path}: gives features and no logits, so no labels: --features FILE.npy (or "
            ".parquet) writes them. Export with --output both for labels, too."
        )
    if save is not None or as_json:
        bundle.require_output("logits")


def verdict(delivered: Delivered, seconds: float, backend: str, written: list[Path]) -> str:
    """As "750 images in 2.3 s (3.1 ms each, cpu), 0 broken → p.csv"."""
    count = delivered.images
    images = f"{count:,} image{'s' if count != 1 else ''}"
    each = f"{_short(1000 * seconds / max(count, 1))} ms each, {backend}"
    place = f" → {', '.join(map(shown, written))}" if written else ""
    return f"{images} in {_short(seconds)} s ({each}), {delivered.broken} broken{place}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def require_all(faults: list[str], delivered: Delivered, *, shown_above: bool) -> None:
    """Fail at the end if a source was missing or an image broken; the results are out by now."""
    if delivered.first is not None:
        first = delivered.first.path if shown_above else delivered.first.error
        broken = f"{delivered.broken} of {delivered.images} images failed; the first: {first}"
        faults = [broken, *faults]
    if faults:
        raise DataError("; ".join(faults))
