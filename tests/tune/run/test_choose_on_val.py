"""Val chooses the epoch; test and ood are asked once."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")


from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.progress import SILENT  # noqa: E402
from vptkit.tune import tune  # noqa: E402
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
