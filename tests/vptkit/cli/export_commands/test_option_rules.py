"""Options that would do nothing are refused, all alike."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest

from vptkit.cli.export_commands.bisect import bisect
from vptkit.cli.export_commands.export import export
from vptkit.cli.export_commands.option_rules import BISECT_RULES, EXPORT_RULES
from vptkit.cli.shared.option_effect import given_options, require_effect
from vptkit.errors import VptkitError

EXPORT = {
    "precision": "fp32",
    "calibration": None,
    "gate": None,
    "target": "auto",
    "verify": True,
    "fold": "all",
    "layout": "baked",
    "gives": "logits",
    "reject_from": None,
    "merge": None,
    "adapters": [],
}


@pytest.mark.parametrize(
    ("option", "settings", "needs"),
    [
        ("calibration", {}, "--precision fp16"),
        ("gate", {}, "--precision fp16"),
        ("gate", {}, "or --merge"),
        ("min_merge_agreement", {"gate": "x"}, "--merge"),
        ("min_merge_agreement", {"merge": "3"}, "--gate or --calibration"),
        ("merge", {"fold": "none"}, "--fold all"),
        ("merge_attention", {"fold": "none"}, "--fold all"),
        ("island", {}, "--precision fp16"),
        ("min_agreement", {}, "--precision fp16"),
        ("min_agreement", {"precision": "int8"}, "--gate or --calibration"),
        ("islands", {"precision": "bf16", "gate": "x"}, "int8 with --target tensorrt"),
        ("islands", {"precision": "int8", "gate": "x"}, "int8 with --target tensorrt"),
        ("islands", {"precision": "fp16"}, "--gate or --calibration"),
        ("calibration_images", {"precision": "int8", "gate": "x"}, "--calibration"),
        ("allow_outside", {}, "--gate, --calibration or --reject-from"),
        ("normalize_features", {}, "--output features or both"),
        ("reject_from", {}, "--output features or both"),
        ("threads", {"verify": False}, "--verify"),
        ("last_block", {"fold": "none"}, "--fold all"),
        ("bank_prompts", {}, "--layout bank"),
        ("bank_classes", {}, "--layout bank"),
        ("bank_rank", {}, "--layout bank"),
        ("bank_layer_norms", {}, "--layout bank"),
    ],
)
def test_what_has_no_effect(option, settings, needs):
    settings = {**EXPORT, option: "given", **settings}
    flag = f"--{option.replace('_', '-')} has no effect here: it goes with .*{needs}"
    with pytest.raises(VptkitError, match=flag):
        require_effect({option}, settings, EXPORT_RULES)
    require_effect(set(), settings, EXPORT_RULES)


@pytest.mark.parametrize(
    ("option", "settings"),
    [
        ("calibration", {"precision": "bf16"}),
        ("islands", {"precision": "int8", "target": "tensorrt", "calibration": "x"}),
        ("min_agreement", {"precision": "fp16", "gate": "x"}),
        ("threads", {}),
        ("allow_outside", {"gives": "both", "reject_from": "x"}),
        ("target", {}),  # of fp32, too: it chooses the form of the last block
        ("bank_prompts", {"layout": "bank"}),
    ],
)
def test_what_has_one(option, settings):
    require_effect({option}, {**EXPORT, option: "x", **settings}, EXPORT_RULES)


def test_a_switch_is_called_as_it_was_typed():
    with pytest.raises(VptkitError, match="--no-islands has no effect"):
        require_effect({"islands"}, {**EXPORT, "islands": False}, EXPORT_RULES)


def test_the_tables_name_real_options():
    for rules, command in ((EXPORT_RULES, export), (BISECT_RULES, bisect)):
        known = inspect.signature(command).parameters
        assert {name for rule in rules for name in rule.options} <= set(known)


def test_of_bisect():
    for option, needs in (("calibration", "int8 or fp8"), ("target", "--precision int8")):
        with pytest.raises(VptkitError, match=f"--{option} has no effect.*{needs}"):
            require_effect({option}, {"precision": "fp16", option: "x"}, BISECT_RULES)
        require_effect({option}, {"precision": "int8", option: "x"}, BISECT_RULES)


def test_only_what_stands_on_the_command_line_was_given():
    sources = {"gate": None, "fold": "DEFAULT", "name": "COMMANDLINE"}
    context = SimpleNamespace(
        params=sources,
        get_parameter_source=lambda name: sources[name] and SimpleNamespace(name=sources[name]),
    )
    assert given_options(context) == {"name"}


def test_merging_nothing_goes_with_the_plain_graph():
    """What an adapter that was tuned with merging needs there."""
    require_effect({"merge", "fold"}, {**EXPORT, "fold": "none", "merge": "0"}, EXPORT_RULES)
