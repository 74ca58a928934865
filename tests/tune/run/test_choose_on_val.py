"""Val chooses the epoch; test and ood are asked once."""

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
from vptkit.progress import SILENT  # noqa: E402
from vptkit.scores.label_report import with_map_names  # noqa: E402
from vptkit.scores.multilabel import sigmoid  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.auto.auto_run import tried_table  # noqa: E402
from vptkit.tune.backbone.reference import reference_logits  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import spec_from_model  # noqa: E402
from vptkit.tune.backbone.timm_backbone import preprocess_of  # noqa: E402
from vptkit.tune.data.dataset import DataSet  # noqa: E402
from vptkit.tune.data.splits import load_splits  # noqa: E402
from vptkit.tune.methods.tuned_model import Tuned  # noqa: E402
from vptkit.tune.phases.phased_training import Trained  # noqa: E402
from vptkit.tune.run.choose_on_val import choose_on_val, temper, top1_on  # noqa: E402
from vptkit.tune.training.loop import split_logits  # noqa: E402
from vptkit.tune.training.train_state import TrainState  # noqa: E402


@pytest.mark.parametrize(
    ("select", "scores", "best"),
    [
        ("top1", [(0.5, 1.0), (0.9, 1.0), (0.1, 0.1)], 2),  # accuracy, not loss, not the last
        ("top1", [(0.5, 1.0), (0.5, 0.9), (0.5, 0.95)], 2),  # then loss
        ("top1", [(0.5, 1.0), (0.5, 1.0), (0.5, 1.0)], 1),  # then the earlier one
        ("loss", [(0.9, 1.0), (0.1, 0.5), (0.5, 0.9)], 2),
        ("loss", [(0.5, 1.0), (0.6, 1.0), (0.5, 1.0)], 2),  # then accuracy
        ("last", [(0.9, 0.1), (0.8, 0.2), (0.1, 0.9)], 3),
    ],
)
def test_the_best_epoch_is_kept(splits, make_config, tmp_path, monkeypatch, select, scores, best):
    heads, left = [], list(scores)

    def scripted(model, *_):
        heads.append(model.head.weight.detach().clone())
        return left.pop(0)

    monkeypatch.setattr("vptkit.tune.phases.phase_trainer.top1_and_loss", scripted)
    result = tune(
        splits,
        tmp_path / "a.safetensors",
        make_config(method="vpt", head_init="zero", select=select, epochs=3, calibrate="none"),
    )
    assert (result.best_epoch, result.val_top1) == (best, scores[best - 1][0])
    kept = read_adapter(result.adapter).tensors["head.weight"]
    assert [np.array_equal(kept, head) for head in heads] == [i == best for i in (1, 2, 3)]


def test_test_is_null_without_a_test_split(make_folders, make_config, tmp_path):
    for name in ("train", "val"):
        make_folders(tmp_path / "d" / name, 5)
    result = tune(tmp_path / "d", tmp_path / "a.safetensors", make_config(epochs=1, method="vpt"))
    assert result.test_top1 is None
    assert result.to_json()["test_top1"] is None
    assert read_adapter(result.adapter).train["test_top1"] is None


def test_test_and_ood_are_not_asked_where_they_shall_not_be(splits, make_config, tmp_path):
    config = make_config(method="vpt", name="x")
    seen = tune(splits, tmp_path / "a.safetensors", config)
    blind = tune(splits, tmp_path / "b.safetensors", config, test=False)
    assert seen.test_top1 is not None
    assert (blind.test_top1, blind.ood_top1) == (None, None)
    assert (blind.best_epoch, blind.val_top1) == (seen.best_epoch, seen.val_top1)


def test_the_model_is_left_with_the_best_epoch(splits, make_vit, make_config):
    model, config = make_vit(), make_config(method="ln")
    found = load_splits(splits, 0, 0.15, 0.15)[1]
    sets = {name: DataSet(split, preprocess_of(model)) for name, split in found.items()}
    tuned = Tuned(model, spec_from_model(model), config, 3, None)
    best = {name: value + 0.25 for name, value in tuned.state_dict().items()}
    history = [{"val_top1": 0.75}, {"val_top1": 0.5}]
    state = TrainState({}, epoch=2, history=history, best_epoch=1, best=best)
    chosen = choose_on_val(Trained(tuned, state), sets, config, SILENT)
    assert (chosen.best_epoch, chosen.val_top1) == (1, 0.75)
    assert (chosen.test_top1, chosen.ood_top1) == (None, None)
    assert all(torch.equal(value, best[name]) for name, value in tuned.state_dict().items())
    moved = 0.25 * 32**0.5 * 2 * 5  # γ and β of five norms of width 32
    assert chosen.layer_norms["shift"]["total"] == pytest.approx(moved, rel=1e-5)
    assert chosen.layer_norms["rescale"] is None


def test_a_split_that_is_not_there_has_no_accuracy(splits, make_vit, make_config):
    model, config = make_vit(), make_config(method="linear")
    split = load_splits(splits, 0, 0.15, 0.15)[1]["test"]
    sets = {"test": DataSet(split, preprocess_of(model))}
    tuned = Tuned(model, spec_from_model(model), config, 3, None)
    with torch.no_grad():
        tuned.head.weight.zero_()
        tuned.head.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))  # always the second class
    assert (
        top1_on("test", tuned, sets, config) == (split.targets == 1).mean() == pytest.approx(1 / 3)
    )
    assert top1_on("ood", tuned, sets, config) is None


def sure(make_folders, make_vit, make_config, tmp_path, **settings):
    """A model that is far too sure of itself, and a val split of 18 images."""
    model, config = make_vit(), make_config(method="linear", **settings)
    make_folders(tmp_path / "d" / "train", 2)
    make_folders(tmp_path / "d" / "val", 6)
    split = load_splits(tmp_path / "d", 0, 0.15, 0.15)[1]["val"]
    sets = {"val": DataSet(split, preprocess_of(model))}
    tuned = Tuned(model, spec_from_model(model), config, 3, None)
    with torch.no_grad():
        tuned.head.weight.mul_(1000)
    return tuned, sets, config


def test_the_head_is_divided_by_the_temperature(make_folders, make_vit, make_config, tmp_path):
    tuned, sets, config = sure(make_folders, make_vit, make_config, tmp_path)
    before = split_logits(tuned, sets["val"], 4)
    told = temper(tuned, sets, config)
    after = split_logits(tuned, sets["val"], 4)
    assert told["temperature"] > 2
    assert told["val_loss"][1] < told["val_loss"][0]
    np.testing.assert_allclose(after, before / told["temperature"], rtol=1e-4, atol=1e-4)
    assert np.array_equal(before.argmax(axis=1), after.argmax(axis=1))


def test_none_is_sought_where_none_is_wanted(make_folders, make_vit, make_config, tmp_path):
    tuned, sets, config = sure(make_folders, make_vit, make_config, tmp_path, calibrate="none")
    before = tuned.head.weight.clone()
    assert temper(tuned, sets, config) is None
    assert torch.equal(tuned.head.weight, before)


@pytest.mark.slow
def test_a_run_folds_its_temperature_and_says_so(make_folders, make_config, tmp_path):
    """The adapter's head is the untempered one's, divided; its answers and its record say the same."""
    data = tmp_path / "d"
    for seed, (name, count) in enumerate({"train": 8, "val": 6, "test": 4}.items()):
        make_folders(data / name, count, seed)
    given = {"method": "ln", "head_init": "zero"}  # a probe would have had a temperature before
    plain, cooled = (
        tune(data, tmp_path / f"{how}.safetensors", make_config(**given, calibrate=how))
        for how in ("none", "temperature")
    )
    told, adapter = cooled.confidence, read_adapter(cooled.adapter)
    assert plain.confidence is read_adapter(plain.adapter).train["confidence"] is None
    assert told["temperature"] != 1
    for name, value in read_adapter(plain.adapter).tensors.items():
        if name.startswith("head."):
            np.testing.assert_allclose(adapter.tensors[name], value / told["temperature"], 1e-5)
        elif name == "golden.logits":
            wanted = value / told["temperature"]
            np.testing.assert_allclose(adapter.tensors[name], wanted, rtol=1e-4, atol=1e-5)
    assert adapter.train["confidence"] == told == cooled.to_json()["confidence"]
    assert (cooled.val_top1, cooled.test_top1) == (plain.val_top1, plain.test_top1)
    again = tune(data, cooled.adapter, make_config(**given), resume=True)
    assert again.confidence == told


# several labels an image ----------------------------------------------------------------------------

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
def test_cycles_and_the_line_of_several_labels(several, make_config, tmp_path):
    settings = {"cycles": 1, "head_epochs": 1, "ln_epochs": 1, "rescale": "all"}
    config = make_config(method="ln", task="multilabel", **settings)
    result = tune(several, tmp_path / "a.safetensors", config)
    rows = {row["alpha"]: row for row in result.line["curve"]}
    chosen = rows[result.line["alpha"]]
    assert chosen["val_map"] == pytest.approx(result.multilabel["val"]["map"], abs=1e-6)
    assert chosen["val_loss"] == min(row["val_loss"] for row in rows.values())
    assert "val_top1" not in chosen


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
