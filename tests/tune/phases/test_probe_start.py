"""The probe in the head before the first epoch, and what is noted of it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from tests.support.tuning_runs import Stop, records  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.progress import SILENT  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import spec_from_model  # noqa: E402
from vptkit.tune.backbone.timm_backbone import preprocess_of  # noqa: E402
from vptkit.tune.data.dataset import DataSet  # noqa: E402
from vptkit.tune.data.splits import load_splits  # noqa: E402
from vptkit.tune.methods.tuned_model import Tuned  # noqa: E402
from vptkit.tune.phases.probe_start import start_from_probe  # noqa: E402
from vptkit.tune.training.loop import top1_and_loss  # noqa: E402
from vptkit.tune.training.train_state import TrainState  # noqa: E402


@pytest.fixture
def started(splits, make_vit, make_config):
    """A function: (model with the probe in its head, sets, state) of some settings."""

    def start(**settings):
        model, config = make_vit(), make_config(**settings)
        found = load_splits(splits, 0, 0.15, 0.15)[1]
        sets = {name: DataSet(split, preprocess_of(model)) for name, split in found.items()}
        tuned, state = Tuned(model, spec_from_model(model), config, 3, None), TrainState({})
        start_from_probe(tuned, sets, config, state, SILENT)
        return tuned, sets, state

    return start


@pytest.mark.parametrize("method", ["linear", "ln", "vpt"])
def test_the_start_is_what_val_says_of_the_model(started, method):
    """With norms as they were it is the probe itself; prompts do something from the first."""
    tuned, sets, state = started(method=method)
    top1, loss = top1_and_loss(tuned, sets["val"], 8)
    assert state.start["epoch"] == state.best_epoch == 0
    assert state.start["val_top1"] == top1
    assert state.start["val_loss"] == pytest.approx(loss, rel=1e-4)
    assert state.best_record is state.start
    assert all(torch.equal(value, tuned.state_dict()[key]) for key, value in state.best.items())
    assert set(state.start["probe"]) == {
        "grid",
        "knn_top1",
        "strength",
        "temperature",
        "val_loss",
        "val_top1",
    }
    assert set(state.start["probe"]["knn_top1"]) == {"10", "20"}
    probe = state.start["probe"]
    assert probe["strength"] in [point["strength"] for point in probe["grid"]]
    same = probe["val_loss"] == state.start["val_loss"]
    assert same == (method != "vpt")


def test_every_method_has_the_head_of_linear(started):
    heads = [started(method=method)[0].head for method in ("linear", "vpt", "ln")]
    assert all(torch.equal(head.weight, heads[0].weight) for head in heads)


@pytest.mark.parametrize("augment", ["none", "flip", "crop"])
def test_augmented_views_decide_with(started, augment):
    tuned = started(method="linear", augment=augment)[0]
    other = started(method="linear", augment="flip" if augment == "none" else "none")[0]
    assert not torch.equal(tuned.head.weight, other.head.weight)


def test_a_run_that_gets_worse_keeps_the_probe(splits, make_config, tmp_path):
    config = make_config(method="ln", lr_ln=50.0, lr_head=1e-9, epochs=2)
    result = tune(splits, tmp_path / "a.safetensors", config)
    linear = tune(splits, tmp_path / "l.safetensors", make_config(method="linear"))
    assert (result.best_epoch, result.val_top1) == (0, linear.val_top1)
    adapter = read_adapter(result.adapter)
    assert adapter.train["best_epoch"] == 0
    assert adapter.train["layer_norms"]["shift"]["total"] == 0
    heads = [read_adapter(r.adapter).tensors["head.weight"] for r in (result, linear)]
    assert (heads[0] == heads[1]).all()


def test_a_killed_run_goes_on_from_the_probe(splits, make_config, tmp_path, monkeypatch):
    """It is not sought again."""
    config = make_config(method="vpt", name="x")
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    with pytest.raises(KeyboardInterrupt):
        tune(splits, tmp_path / "a.safetensors", config, progress=Stop(1))
    monkeypatch.setattr(
        "vptkit.tune.phases.phased_training.start_from_probe", lambda *_: pytest.fail("again")
    )
    resumed = tune(splits, tmp_path / "a.safetensors", config, resume=True)
    assert resumed.adapter.read_bytes() == whole.adapter.read_bytes()
    assert records(resumed) == records(whole)


def test_of_few_images_held_out_parts_of_train_judge_too(started, monkeypatch):
    """What val alone would choose, more images may know better."""
    few = started(method="linear")[2].start["probe"]
    monkeypatch.setattr("vptkit.tune.phases.probe_start._FEW", 0)
    many = started(method="linear")[2].start["probe"]
    losses = {p["strength"]: p["val_loss"] for p in many["grid"]}
    assert any(losses.get(p["strength"]) not in (None, p["val_loss"]) for p in few["grid"])
