"""Names of linears for people."""

from __future__ import annotations

import pytest

from vptkit.errors import VptkitError
from vptkit.tune.config import TuneConfig, config_from_mapping
from vptkit.tune.lora_targets import TARGETS, targets_of


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("q,v", ("q", "v")),
        ("v, q", ("q", "v")),
        ("q,q", ("q",)),
        ("qkv", ("q", "k", "v")),
        ("fc2,qkv,q", ("q", "k", "v", "fc2")),
        ("all", TARGETS),
    ],
)
def test_names(text, wanted):
    assert targets_of(text) == wanted


@pytest.mark.parametrize("text", ["", "q;v", "query", "q,", "blocks.0.attn.qkv", "Q"])
def test_others_are_refused_with_those_that_there_are(text):
    with pytest.raises(
        VptkitError, match=r"lora_targets is .*expected one or more of q, k, v, proj"
    ):
        config_from_mapping({"backbone": "vit", "method": "lora", "lora_targets": text})


def test_one_choice_has_one_spelling():
    """So that a run resumes whatever order its targets were named in."""
    first, second = (
        TuneConfig(backbone="vit", method="lora", lora_targets=text) for text in ("v,q", "q,v")
    )
    assert first.to_json() == second.to_json()
    assert TuneConfig(backbone="vit", method="lora", lora_targets="all").lora_targets == (
        "q,k,v,proj,fc1,fc2"
    )
