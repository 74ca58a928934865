"""Token merging (ToMe, Bolya et al., ICLR 2023) as adapters and bundles note it: how many tokens, where.

What merging computes is in `vptkit.tune.backbone.token_merging`; here is only what is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from vptkit.errors import VptkitError
from vptkit.schema import choice, integer, list_of, record, require

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "MERGE",
    "MERGE_ATTENTIONS",
    "ROTARY_STEPS",
    "MergeAttention",
    "Mergeable",
    "TokenMerging",
    "merge_problems",
    "merge_schedule",
    "merge_setting",
    "parse_merge",
    "tokens_of_blocks",
]

MergeAttention = Literal["proportional", "plain"]
MERGE_ATTENTIONS: tuple[str, ...] = get_args(MergeAttention)
ROTARY_STEPS = 1 << 12  # of similarities, where keys are rotated
_MOST_TOKENS, _MOST_BLOCKS = 1 << 18, 512
MERGE = record(
    {
        "schedule": list_of(integer(0, _MOST_TOKENS), _MOST_BLOCKS, least=1),
        "attention": choice(*MERGE_ATTENTIONS),
    }
)


class Mergeable(Protocol):
    """What is asked of a `BackboneSpec`, which this package does not import."""

    @property
    def depth(self) -> int: ...  # noqa: D102
    @property
    def patches(self) -> int: ...  # noqa: D102
    @property
    def tokens(self) -> int: ...  # noqa: D102
    @property
    def relative(self) -> object: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMerging:
    """What a forward pass merges.

    Attributes:
        schedule: r of each block, L numbers, as many as are merged indeed (`merge_schedule`); 0 in
            the last block.
        attention: "proportional" adds log(size) to the attention logits of tokens; "plain" does not.
    """

    schedule: tuple[int, ...]
    attention: MergeAttention = "proportional"

    @property
    def proportional(self) -> bool:
        """Whether attention looks at a token as often as it has patches in it."""
        return self.attention == "proportional"

    @property
    def merged(self) -> int:
        """Tokens that the last block has fewer than the first."""
        return sum(self.schedule)

    def to_json(self) -> dict[str, Any]:
        """As the adapter file and the manifest write it."""
        return {"schedule": list(self.schedule), "attention": self.attention}

    @classmethod
    def from_json(cls, document: Any, source: object, error: type[VptkitError]) -> TokenMerging:
        """Read what `to_json` wrote.

        Raises:
            VptkitError: of the given kind: it is something else.
        """
        require(document, MERGE, source, error, "merge")
        return cls(schedule=tuple(document["schedule"]), attention=document["attention"])


def parse_merge(text: str) -> int | tuple[int, ...]:
    """Read "12", so many in every block but the last, or "0,0,8,8", one number a block.

    Raises:
        VptkitError: it is something else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts):
        raise VptkitError(
            f"merge is {text[:100]!r}: expected how many tokens each block merges, as 12, or one "
            "number for each block, as 0,0,8,8"
        )
    numbers = tuple(int(part) for part in parts)
    return numbers[0] if len(numbers) == 1 else numbers


def merge_setting(value: object) -> int | str:
    """What a user asks for, in one form: 12, or "0,0,8,8"; 0 where nothing is merged.

    Args:
        value: a number, a list of numbers, or either as a text.

    Raises:
        VptkitError: it is something else.
    """
    if isinstance(value, list | tuple) and all(type(r) is int for r in value):
        value = ",".join(map(str, value))
    elif type(value) is int:
        value = str(value)
    found = parse_merge(value if isinstance(value, str) else repr(value))
    if isinstance(found, int):
        return found
    return ",".join(map(str, found)) if any(found) else 0


def merge_schedule(merge: int | Sequence[int], spec: Mergeable) -> tuple[int, ...]:
    """How many tokens each block merges, clipped to what is left: r ≤ (T_i - prefix) // 2.

    Args:
        merge: r of every block but the last, or of each block.
        spec: of the backbone.

    Returns:
        L numbers, the last of them 0.

    Raises:
        VptkitError: there are more or fewer numbers than blocks, one is negative, or the last is
            not 0.
    """
    asked = [merge] * (spec.depth - 1) + [0] if isinstance(merge, int) else list(merge)
    if len(asked) != spec.depth:
        raise VptkitError(
            f"merge has {len(asked)} numbers, expected one for each of {spec.depth} blocks"
        )
    if min(asked) < 0:
        raise VptkitError(f"merge holds {min(asked)}, expected 0 or more")
    if asked[-1]:
        raise VptkitError(
            f"merge asks for {asked[-1]} in the last block, behind which nothing attends: expected 0"
        )
    found, patches = [], spec.patches
    for r in asked:
        found.append(min(r, patches // 2))
        patches -= found[-1]
    return tuple(found)


def tokens_of_blocks(schedule: Sequence[int], spec: Mergeable) -> list[tuple[int, int]]:
    """Of each block: tokens that attend, and tokens that are left behind it; prompts not counted.

    The MLP sees those that are left, but in blocks of kind "parallel" those that attend.
    """
    found, tokens = [], spec.tokens
    for r in schedule:
        found.append((tokens, tokens - r))
        tokens -= r
    return found


def merge_problems(merging: TokenMerging, spec: Mergeable) -> list[str]:
    """Why a backbone cannot merge so, by the names of its features."""
    problems = []
    if spec.relative is not None:
        problems.append(
            "token merging is not known with relative positions (relative): a table has no entry for "
            "a merged token"
        )
    try:
        fitting = merge_schedule(merging.schedule, spec)
    except VptkitError as error:
        return [*problems, str(error)]
    if fitting != merging.schedule:
        problems.append(
            f"merge is {','.join(map(str, merging.schedule))}, of {spec.patches} patches at most "
            f"{','.join(map(str, fitting))} can be merged"
        )
    return problems
