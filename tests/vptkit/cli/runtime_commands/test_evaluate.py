"""`vptkit eval` from outside."""

from __future__ import annotations

import json

import pytest

from tests.support.command_errors import assert_error


def test_eval(vptkit, make_bundle, colour_folders):
    code, out, err = vptkit("eval", make_bundle(), colour_folders, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["top1"] == pytest.approx(11 / 12)
    assert document["count"] == 12
    assert "eval: 12/12" in err
    assert "top1" in vptkit("eval", make_bundle(), colour_folders)[1]


def test_eval_of_other_labels(vptkit, make_bundle, colour_folders):
    bundle = make_bundle(labels=("red", "green", "violet"))
    assert_error(vptkit("eval", bundle, colour_folders), 2, "violet", "blue")
    assert_error(vptkit("eval", bundle, colour_folders, "--split", "test"), 2, "no split 'test'")
    assert_error(vptkit("eval", bundle, colour_folders / "no"), 2, "no such folder")
