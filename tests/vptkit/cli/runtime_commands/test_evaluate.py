"""`vptkit eval` from outside."""

from __future__ import annotations

import json
import re
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
    bundle = make_bundle()
    code, out, _ = vptkit("eval", bundle, colour_folders)
    verdict, further = out.splitlines()[-2:]
    assert verdict == "top-1 91.7 % (11 of 12; 95 % interval 64.6 to 98.5 %)"
    assert further == f"next: vptkit eval {bundle} {colour_folders} --save wrong.csv"
    assert "green/3.png" in out


@pytest.mark.slow
def test_mistakes_and_the_picture_are_saved(vptkit, make_bundle, colour_folders, tmp_path):
    bundle, outputs = make_bundle(), (tmp_path / "wrong.csv", tmp_path / "confusion.svg")
    asked = ("eval", bundle, colour_folders, "--save", outputs[0], "--plot", outputs[1])
    code, out, _ = vptkit(*asked)
    assert code == 0
    assert out.splitlines()[-2].startswith(f"wrote {outputs[0]} (")
    assert out.splitlines()[-1] == f"next: vptkit profile {bundle}"
    header, row = outputs[0].read_text().splitlines()
    assert header == "path,truth,answered,probability"
    assert row.startswith(f"{colour_folders}/green/3.png,green,blue,0.")
    assert "91.7" not in row
    assert b"<svg" in outputs[1].read_bytes()
    assert_error(vptkit(*asked), 2, "wrong.csv: exists already", "--force")
    outputs[0].unlink()
    assert_error(vptkit(*asked), 2, "confusion.svg: exists already", "--force")
    assert vptkit(*asked, "--force")[0] == 0
    assert_error(vptkit(*asked[:3], "--save", "wrong.xls"), 2, "as .csv or .jsonl")
    assert_error(vptkit(*asked[:3], "--plot", "a.gif"), 2, ".pdf, .png, .svg")


def test_some_classes_are_judged_with_a_note(vptkit, make_bundle, colour_folders):
    shutil.rmtree(colour_folders / "red")
    code, out, err = vptkit("eval", make_bundle(), colour_folders, "--json")
    assert code == 0
    assert f"note: {colour_folders}: judged on 2 of 3 classes; no images of red" in err
    assert json.loads(out)["absent"] == ["red"]


def test_eval_of_other_labels(vptkit, make_bundle, colour_folders):
    bundle = make_bundle(labels=("red", "green", "violet"))
    assert_error(vptkit("eval", bundle, colour_folders), 2, "violet", "red, green, violet")
    assert_error(vptkit("eval", bundle, colour_folders, "--split", "test"), 2, "no split 'test'")
    assert_error(vptkit("eval", bundle, colour_folders / "no"), 2, "no such folder")


def test_a_class_that_is_spelt_otherwise(vptkit, make_bundle, colour_folders):
    (colour_folders / "red").rename(colour_folders / "Reds")
    assert_error(vptkit("eval", make_bundle(), colour_folders), 2, "(Reds is near red)")


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


@pytest.mark.slow
def test_several_labels_an_image(vptkit, make_bundle, colour_folders, tmp_path):
    bundle = make_bundle(thresholds=(0.5, 0.5, 0.5))
    code, out, _ = vptkit("eval", bundle, colour_folders, "--save", tmp_path / "w.csv")
    verdict, told, _ = out.splitlines()[-3:]
    assert (code, told.startswith(f"wrote {tmp_path}/w.csv (")) == (0, True)
    assert re.match(r"mAP \d+\.\d %, micro F1 \d+\.\d % \(95 % interval .*\(12 images\)$", verdict)
    assert re.search(r"^label +images +given +precision +recall +F1 +AP +from$", out, re.MULTILINE)
    _, out, _ = vptkit("eval", bundle, colour_folders, "--json")
    document = json.loads(out)
    assert (document["task"], document["count"]) == ("multilabel", 12)
    saved = (tmp_path / "w.csv").read_text().splitlines()
    assert len(saved) == 1 + 12 - document["exact"]
    code, _, err = vptkit("eval", bundle, colour_folders, "--plot", tmp_path / "c.svg")
    assert code == 2
    assert "--plot" in err
    assert not (tmp_path / "c.svg").exists()
