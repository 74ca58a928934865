"""`vptkit eval` from outside."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.support.command_errors import assert_error
from vptkit.cli.runtime_commands.evaluate import evaluate_bundle


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


def test_the_batch_does_not_change_the_accuracy(make_bundle, colour_folders, capsys):
    bundle, found = make_bundle(), []
    for batch in (1, 5, 64):
        evaluate_bundle(bundle, colour_folders, batch=batch, as_json=True)
        found.append(json.loads(capsys.readouterr().out))
    for document in found:
        document.pop("seconds", None)
        document.pop("images_per_s", None)
    assert found[0] == found[1] == found[2]


def test_images_outside_of_the_data(vptkit, make_bundle, colour_folders, tmp_path):
    data = tmp_path / "stranger"
    shutil.copytree(colour_folders, data)
    (data / "red" / "0.png").unlink()
    (data / "red" / "0.png").symlink_to(colour_folders / "red" / "0.png")
    told = "1 file lies outside of this data set", "red/0.png", "--allow-outside"
    assert_error(vptkit("eval", make_bundle(), data), 2, *told)
    code, out, err = vptkit("eval", make_bundle(), data, "--allow-outside", "--json")
    assert (code, json.loads(out)["count"]) == (0, 12)
    assert "note: " in err
    assert "1 file lies outside of this data set" in err
