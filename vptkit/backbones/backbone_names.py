"""The names of timm that somebody means who writes ViT-B/16, facebook/dinov2-small or deit tiny.

Names are taken apart into words; a rare word ("dinov2") says more than a common one ("vit"). Words
that no backbone has, such as "facebook", say nothing.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

from .backbone_table import all_backbones

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .backbone_table import Backbone

__all__ = ["matching", "near_names"]

_SIZES = {
    "t": "tiny",
    "ti": "tiny",
    "s": "small",
    "b": "base",
    "l": "large",
    "h": "huge",
    "g": "giant",
    "gigantic": "gigantic",
    "m": "medium",
}
_PATCHES = ("8", "14", "16", "32")
_SYNONYMS = {"registers": "reg", "register": "reg", "siglip2": "siglip"}
_SIZED = re.compile(r"(vit)?(ti|t|s|b|l|h|g)_?(8|14|16|32)")  # as in vitb16, dinov2_vits14, B/16
_LEAST = 0.6  # of what all words of a name are worth


def matching(word: str) -> list[Backbone]:
    """The backbones of which all words of a name are, the plainest first; all for an empty one.

    Where there is none, those that most of it fits.
    """
    wanted = [one for one in _words(word) if _worth(one)]
    if not wanted:
        return [] if word.strip() else list(all_backbones())
    scored = {one.name: _score(wanted, one) for one in all_backbones()}
    best = max(scored.values())
    whole = sum(map(_worth, wanted))
    if best < _LEAST * whole:
        return []
    found = [one for one in all_backbones() if scored[one.name] >= 0.99 * best]
    typed = word.strip().lower()
    return sorted(found, key=lambda one: (one.name != typed, *_plainness(one)))


def near_names(name: str, most: int = 4) -> list[str]:
    """Names for an error's "did you mean", of those that export, the likeliest first."""
    found = [_tagged(name, one) for one in matching(name)]
    if not found:
        known = [one.name for one in all_backbones()]
        found = difflib.get_close_matches(name.lower(), known, n=most, cutoff=0.5)
    return found[:most]


def _tagged(typed: str, one: Backbone) -> str:
    """A name, with the tag of those weights that somebody asked for: vit_small_patch16_224.dino."""
    own = set(_words(one.name))
    asked = [word for word in _words(typed) if word not in own]
    tag = next((tag for tag in one.tags if any(word in _words(tag) for word in asked)), None)
    return one.name if tag is None or one.default_tag == tag else f"{one.name}.{tag}"


def _plainness(one: Backbone) -> tuple[bool, bool, bool, int, int, str]:
    """Names with weights first; then the shortest, the smallest."""
    size = one.image != (224, 224)
    words = len(one.name.split("_"))
    other = not one.name.startswith(("vit_", "deit_"))
    return one.repository is None, words > 4, other, size + words, one.parameters, one.name


def _score(wanted: Iterable[str], one: Backbone) -> float:
    return sum(_worth(word) * _fit(word, one) for word in wanted)


def _fit(word: str, one: Backbone) -> float:
    own = _own_words(one.name)
    if word in own:
        return 1.0
    if word in _words_of(one):  # of a tag: other weights of the same model
        return 0.95
    return 0.9 if len(word) > 2 and any(other.startswith(word) for other in own) else 0.0


@lru_cache(maxsize=1)
def _frequencies() -> Counter[str]:
    return Counter(word for one in all_backbones() for word in _words_of(one))


@lru_cache(maxsize=256)
def _worth(word: str) -> float:
    """How much a word tells: nothing if no backbone has it."""
    counts, total = _frequencies(), len(all_backbones())
    count = counts[word] or sum(
        n for other, n in counts.items() if len(word) > 2 and other.startswith(word)
    )
    return math.log(2 * total / min(count, total)) if count else 0.0


@lru_cache(maxsize=512)
def _own_words(name: str) -> frozenset[str]:
    return frozenset(_words(name))


@lru_cache(maxsize=512)
def _words_of(one: Backbone) -> frozenset[str]:
    return frozenset(_words(" ".join((one.name, *one.tags))))


def _words(text: str) -> list[str]:
    """The words of a name, with sizes and patches as timm has them: "B/16" → base, patch16."""
    text = text.lower().removeprefix("hf-hub:").removeprefix("hf_hub:")
    found: list[str] = []
    for part in re.split(r"[^a-z0-9]+", text):
        sized = _SIZED.fullmatch(part)
        if sized is not None:
            found += [*filter(None, [sized[1]]), _SIZES[sized[2]], f"patch{sized[3]}"]
        elif part in _PATCHES:
            found.append(f"patch{part}")
        else:
            joined = re.fullmatch(r"(vit)(tiny|small|base|large|huge|giant)", part)
            found += joined.groups() if joined else [_SYNONYMS.get(part, _SIZES.get(part, part))]
    return list(dict.fromkeys(word for word in found if word))
