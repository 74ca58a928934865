"""Options of `vptkit profile --loadgen`: what does nothing, or does not go together, is refused.

Runs of LoadGen itself are in tests/runtime/loadgen/test_run_loadgen.py.
"""

from __future__ import annotations

import pytest

from tests.support.command_errors import assert_error
from tests.support.command_tree import COMMANDS
from vptkit.cli.runtime_commands.layers_profile import LAYER_OPTIONS
from vptkit.cli.runtime_commands.loadgen_run import LOADGEN_RULES, loadgen_run

ACCURACY = ("--loadgen", "SingleStream", "--accuracy", "--data", ".")
# What counts with --accuracy, too, or is refused with a word of its own
_COUNT = {"bundles", "backend", "adapter", "batch", "threads", "trust_engines", "force", "as_json"}
_REFUSED = {"on", "python", "ssh_option", "clean", "help", "layers", *LAYER_OPTIONS}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--queries", 5), "--queries has no effect here: it goes with --loadgen"),
        (("--min-duration", 0), "--min-duration has no effect here: it goes with --loadgen"),
        (("--accuracy",), "--accuracy has no effect here: it goes with --loadgen"),
        (("--loadgen-logs", "x"), "--loadgen-logs has no effect here: it goes with --loadgen"),
        *(
            ((*ACCURACY, *option), f"{option[0]} has no effect here")
            for option in [
                *(("--streams", 2), ("--energy", 5), ("--rounds", 3), ("--seconds", 1)),
                *(("--seed", 1), ("--no-memory",), ("--plot", "x.png"), ("--cuda-graph", "both")),
                *(("--power", "all"), ("--pin-clocks",), ("--baseline",)),
            ]
        ),
        ((*ACCURACY, "--queries", 5), "--queries has no effect with --accuracy"),
        ((*ACCURACY, "--batch", 2), "--batch has no effect on SingleStream"),
        (("--loadgen", "Server", "--pin-clocks"), "does not go with --pin-clocks"),
        (("--loadgen", "Server", "--baseline"), "does not go with --baseline"),
        (("--loadgen", "Server", "--on", "me@board"), "does not go with --on"),
        (("--loadgen", "Server", "--batch", "1,8"), "one --batch"),
        (("--loadgen", "Server", "--accuracy"), "--accuracy needs --data"),
        (("--loadgen", "Server", "--data", "nowhere"), "nowhere: no such"),
        (("--loadgen", "single"), "'single' is not known"),
    ],
)
def test_what_is_refused(vptkit, make_bundle, options, told):
    assert_error(vptkit("profile", make_bundle(), *options), 2, told)


def test_every_option_counts_or_is_refused():
    """A new option of profile is thought of."""
    options = {parameter.name for parameter in COMMANDS["profile"].params}
    in_rules = {name for rule in LOADGEN_RULES for name in rule.options}
    assert options - in_rules - _COUNT - _REFUSED == {
        "loadgen",
        "parts",
        "decode",
    }  # see PARTS_RULES
    assert in_rules - options == set()


def test_without_loadgen_there_is_no_run():
    assert loadgen_run({"loadgen": None}, None) is None


def test_nothing_is_measured_where_the_folder_exists(vptkit, make_bundle, tmp_path):
    pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen is not installed")
    (tmp_path / "logs").mkdir()
    asked = ("--loadgen", "SingleStream", "--loadgen-logs", tmp_path / "logs", "--rounds", 10**8)
    assert_error(vptkit("profile", make_bundle(), *asked), 2, "logs: exists already", "--force")
