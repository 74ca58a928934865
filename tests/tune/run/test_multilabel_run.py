"""Whole tuning runs on images with several labels."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from PIL import Image  # noqa: E402
from sklearn.metrics import average_precision_score, f1_score  # noqa: E402

from vptkit.cli.tune_commands.tune_verdict import tune_verdict  # noqa: E402
from vptkit.errors import TrainingError, VptkitError  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.images.image_file import open_image  # noqa: E402
from vptkit.images.preprocess import prepare  # noqa: E402
from vptkit.scores.label_report import with_map_names  # noqa: E402
from vptkit.scores.multilabel import sigmoid  # noqa: E402
from vptkit.tune.auto.auto_run import tried_table  # noqa: E402
from vptkit.tune.auto.tune_method import tune  # noqa: E402
from vptkit.tune.backbone.reference import reference_logits  # noqa: E402

LABELS = ("blue", "green", "red")


def labelled(root, rng, count, *, noise=False):
    """{name: its labels} of images in `root`: each label is a patch of its colour."""
    root.mkdir()
    found = {}
    for i in range(count):
        has = rng.random(3) < (0.6, 0.4, 0.25)
        pixels = rng.normal(90, 30, (32, 32, 3))
        for channel in np.flatnonzero(has):
            pixels[8 * channel : 8 * channel + 12, :, 2 - channel] += rng.normal(45, 40)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{i}.png")
        told = rng.random(3) < (0.6, 0.4, 0.25) if noise else has
        found[f"{i}.png"] = [LABELS[k] for k in np.flatnonzero(told)]
    return found


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """train/ (40 images), val/ (30) and test/ (20), each with its labels.json."""
    root, rng = tmp_path_factory.mktemp("several"), np.random.default_rng(0)
    for split, count in {"train": 30, "val": 24, "test": 20}.items():
        found = labelled(root / split, rng, count)
        (root / split / "labels.json").write_text(json.dumps(found))
    return root


def answers(root, split, adapter, weights):
    """(probabilities, truth) of a split, by the reference implementation."""
    found = json.loads((root / split / "labels.json").read_text())
    names = sorted(found)
    preprocess = read_adapter(adapter).preprocess
    files = [root / split / name for name in names]
    pixels = np.stack([prepare(open_image(file), preprocess, file) for file in files])
    truth = [[label in found[name] for label in LABELS] for name in names]
    return sigmoid(reference_logits(adapter, weights, pixels)), np.array(truth)


@pytest.mark.long
def test_end_to_end(several, weights, make_config, tmp_path):
    config = make_config(method="ln", task="multilabel")
    result = tune(several, tmp_path / "a.safetensors", config)
    adapter = read_adapter(tmp_path / "a.safetensors")
    assert (adapter.task, adapter.labels) == ("multilabel", LABELS)
    assert result.val_top1 is None
    assert result.test_top1 is None
    for split in ("val", "test"):
        chances, truth = answers(several, split, tmp_path / "a.safetensors", weights)
        given, found = chances >= adapter.thresholds, result.multilabel[split]
        expected = np.mean([average_precision_score(truth[:, c], chances[:, c]) for c in range(3)])
        assert found["map"] == pytest.approx(expected, abs=1e-6)
        assert found["micro_f1"] == pytest.approx(f1_score(truth, given, average="micro"))
        assert found["macro_f1"] == pytest.approx(f1_score(truth, given, average="macro"))
        assert found["map"] > truth.mean() + 0.1
        assert found["unjudged"] == []
    assert result.multilabel["labels"]["red"]["threshold"] == float(adapter.thresholds[2])
    assert adapter.train["multilabel"] == result.multilabel
    assert result.probe["val_map"] is not None
    assert "val_top1" not in result.probe
    records = [json.loads(line) for line in result.metrics.read_text().splitlines()]
    assert all("val_map" in record for record in records)
    json.dumps(result.to_json(), allow_nan=False)
    assert tune_verdict(result, config).startswith("test mAP ")
    again = tune(several, tmp_path / "a.safetensors", config, resume=True)
    assert again.multilabel == result.multilabel


@pytest.mark.long
def test_without_val_cross_validation_chooses_thresholds_too(
    several, weights, make_config, tmp_path
):
    config = make_config(method="linear", task="multilabel")
    result = tune(several / "train" / "labels.json", tmp_path / "a.safetensors", config)
    assert result.cross_validation == {"folds": 5, "joined": 0}
    assert result.multilabel["val"]["images"] == 30
    assert result.multilabel["test"] is None
    thresholds = read_adapter(tmp_path / "a.safetensors").thresholds
    assert thresholds.min() > 0
    assert set(thresholds.tolist()) != {0.5}
    assert tune_verdict(result, config).startswith("cross-validation mAP ")


def test_what_auto_tried_is_told_by_its_map():
    row = {"method": "ln", "epochs": 1, "val_loss": 0.2, "numbers": 9, "seconds": 1.0}
    table = tried_table(with_map_names({"kept": "ln", "tried": [{**row, "val_top1": 0.625}]}))
    assert "val mAP" in table
    assert "0.6250" in table


@pytest.mark.slow
def test_labels_that_say_nothing_give_no_adapter(tmp_path, make_config):
    found = labelled(tmp_path / "x", np.random.default_rng(1), 60, noise=True)
    (tmp_path / "x" / "labels.json").write_text(json.dumps(found))
    config = make_config(method="linear", task="multilabel", pool="avg")
    with pytest.raises(TrainingError, match="Nothing was learned: of the 60 images"):
        tune(tmp_path / "x", tmp_path / "a.safetensors", config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shots": 5}, "shots is 5, which task multilabel does not have"),
        ({"class_weights": "balanced"}, "class_weights is balanced, which task multilabel"),
        ({"rescale": "gamma", "method": "ln"}, "pass --rescale all"),
        ({"task": "both"}, "task is 'both', expected one of single, multilabel"),
    ],
)
def test_what_several_labels_do_not_have(make_config, settings, message):
    with pytest.raises(VptkitError, match=message):
        make_config(**{"task": "multilabel", **settings})
