"""`vptkit profile --parts`: its text, its document, and what it refuses."""

from __future__ import annotations

import json

import pytest

from tests.support.command_errors import assert_error
from vptkit.cli.runtime_commands import parts_profile

QUICK = ("--parts", "--rounds", 2, "--seconds", 0.01, "--backend", "cpu", "--threads", 1)


def test_text_and_document(vptkit, make_bundle, colour_folders):
    bundle = make_bundle()
    code, out, err = vptkit("profile", bundle, *QUICK, "--data", colour_folders)
    assert code == 0, err
    assert out.split("\n")[0].split()[:6] == ["ms", "an", "image", "batch", "read", "decode"]
    assert "tiny-0, batch 8: reading" in out
    asked = ("--data", colour_folders, "--batch", "2", "--decode", "fast", "--json")
    code, out, _ = vptkit("profile", bundle, *QUICK, *asked)
    (row,) = json.loads(out)["rows"]
    assert (code, row["batch"], row["decode"], row["threads"]) == (0, 2, "fast", 1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "--parts needs --data FOLDER"),
        (("--data", "nowhere"), "nowhere"),
        (("--data", ".", "--decode", "quick"), "expected one of exact, fast"),
        (("--layers",), "has no effect here"),
        (("--baseline",), "has no effect here"),
    ],
)
def test_what_is_refused(vptkit, make_bundle, colour_folders, monkeypatch, given, words):
    monkeypatch.chdir(colour_folders)
    assert_error(vptkit("profile", make_bundle(), *QUICK, *given), 2, words)


def test_options_of_parts_alone_are_refused_without_it(vptkit, make_bundle):
    assert_error(vptkit("profile", make_bundle(), "--decode", "fast"), 2, "goes with --parts")
    assert_error(vptkit("profile", make_bundle(), "--data", "x"), 2, "--parts or --loadgen")


def test_a_rule_names_options_that_there_are():
    from vptkit.cli.runtime_commands.profile import profile

    known = set(profile.__annotations__)
    assert all(set(rule.options) <= known for rule in parts_profile.PARTS_RULES)
