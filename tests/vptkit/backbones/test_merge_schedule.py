"""Schedules of token merging: read, clipped, refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.plain_vit import plain_vit
from vptkit.backbones.merge_schedule import (
    TokenMerging,
    merge_problems,
    merge_schedule,
    parse_merge,
    tokens_of_blocks,
)
from vptkit.errors import AdapterError, VptkitError
from vptkit.formats.backbone_spec import RelativePositions, Rotary

if TYPE_CHECKING:
    from collections.abc import Sequence

SPEC = plain_vit((32, 32), 8, width=16, depth=4, heads=2)


@pytest.mark.parametrize(
    ("merge", "wanted"),
    [
        (3, (3, 3, 3, 0)),
        (0, (0, 0, 0, 0)),
        (100, (8, 4, 2, 0)),  # of 16, 8 and 4 patches at most half
        ([0, 5, 5, 0], (0, 5, 5, 0)),
        ([9, 0, 9, 0], (8, 0, 4, 0)),
    ],
)
def test_schedules_are_clipped_to_what_is_left(
    merge: int | Sequence[int], wanted: tuple[int, ...]
) -> None:
    assert merge_schedule(merge, SPEC) == wanted


def test_protected_tokens_do_not_count() -> None:
    assert merge_schedule(100, replace(SPEC, registers=4)) == merge_schedule(100, SPEC)


@pytest.mark.parametrize(
    ("merge", "told"),
    [([1, 1, 0], "3 numbers.*4 blocks"), ([1, -1, 1, 0], "-1"), ([1, 1, 1, 1], "last block")],
)
def test_other_schedules_are_refused(merge: Sequence[int], told: str) -> None:
    with pytest.raises(VptkitError, match=told):
        merge_schedule(merge, SPEC)


@pytest.mark.parametrize(("text", "wanted"), [("12", 12), ("0", 0), ("0, 8,8,0", (0, 8, 8, 0))])
def test_texts(text: str, wanted: int | tuple[int, ...]) -> None:
    assert parse_merge(text) == wanted


@pytest.mark.parametrize("text", ["", "a", "-1", "1.5", "1,,2", "²", "9" * 5000, "1;2"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(VptkitError, match="merge is"):
        parse_merge(text)


def test_tokens_of_blocks() -> None:
    assert tokens_of_blocks((3, 3, 3, 0), SPEC) == [(17, 14), (14, 11), (11, 8), (8, 8)]


def test_a_document_gives_itself() -> None:
    merging = TokenMerging(schedule=(3, 0), attention="plain")
    assert TokenMerging.from_json(merging.to_json(), "x", AdapterError) == merging
    for broken in (None, {}, {"schedule": [1, True], "attention": "plain"}, {"schedule": []}):
        with pytest.raises(AdapterError, match="merge"):
            TokenMerging.from_json(broken, "x", AdapterError)


def test_what_cannot_merge_is_named() -> None:
    merging = TokenMerging(schedule=(3, 3, 3, 0))
    assert merge_problems(merging, SPEC) == []
    assert merge_problems(merging, replace(SPEC, rotary=Rotary(kind="axial"))) == []
    relative = replace(SPEC, relative=RelativePositions(kind="table"))
    assert "relative positions" in merge_problems(merging, relative)[0]
    assert merge_problems(merging, replace(SPEC, block="parallel")) == []
    assert "at most 8,4,2,0" in merge_problems(TokenMerging(schedule=(9, 9, 9, 0)), SPEC)[0]
    assert "4 blocks" in merge_problems(TokenMerging(schedule=(3, 0)), SPEC)[0]
