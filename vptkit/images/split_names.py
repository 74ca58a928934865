"""What the splits of a data set are called, by us and by others."""

from __future__ import annotations

__all__ = ["SPLIT_NAMES", "split_of_name"]

# Those of Hugging Face among them.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
    "ood": ("ood",),
}
_CANONICAL = {alias: split for split, names in SPLIT_NAMES.items() for alias in names}


def split_of_name(name: str) -> str | None:
    """Our word for a split's name, or None for a name that means none."""
    return _CANONICAL.get(name.strip().lower())
