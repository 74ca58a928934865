"""The linears of a block that LoRA may change, by their names for people; no torch in here."""

from __future__ import annotations

from vptkit.errors import VptkitError

__all__ = ["TARGETS", "targets_of"]

TARGETS = ("q", "k", "v", "proj", "fc1", "fc2")
_SHORT = {"qkv": ("q", "k", "v"), "all": TARGETS}


def targets_of(text: str) -> tuple[str, ...]:
    """What "q,v" or "qkv,proj" or "all" names, of `TARGETS`, in their order.

    Raises:
        VptkitError: another word, or none.
    """
    words = [word.strip() for word in text.split(",")]
    found = {name for word in words for name in _SHORT.get(word, (word,))}
    if found <= set(TARGETS):
        return tuple(name for name in TARGETS if name in found)
    raise VptkitError(
        f"settings: lora_targets is {text!r}, expected one or more of {', '.join((*TARGETS, *_SHORT))}, joined "
        "by commas, as q,v"
    )
