"""A checkpoint puts back what it took, and is refused by any other run."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from vptkit.errors import DataError  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import spec_from_model  # noqa: E402
from vptkit.tune.methods.tuned_model import Tuned  # noqa: E402
from vptkit.tune.training.checkpoint import (  # noqa: E402
    load_checkpoint,
    restore_moments,
    restore_parameters,
    save_checkpoint,
)
from vptkit.tune.training.train_state import TrainState  # noqa: E402


@pytest.fixture
def training(make_vit, make_config):
    """A function: a model of some seed and its optimizer, after a step."""

    def make(seed):
        config, vit = make_config(method="bpt", seed=seed), make_vit()
        model = Tuned(vit, spec_from_model(vit), config, 3, None)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        sum((p**2).sum() for p in model.parameters()).backward()
        optimizer.step()
        return model, optimizer

    return make


def test_everything_comes_back(training, tmp_path):
    model, optimizer = training(0)
    state = TrainState(
        identity={"config": {"lr": 0.1}, "data": "d"},
        epoch=3,
        history=[{"epoch": 1, "val_loss": 0.1 + 0.2}],
        best_epoch=2,
        best={"head.weight": torch.full((3, 2), 0.7)},
        scaler={"scale": 4096.0},
    )
    path = tmp_path / "a.checkpoint.safetensors"
    save_checkpoint(path, model, optimizer, state)
    found, tensors = load_checkpoint(path, state.identity)
    assert torch.equal(found.best.pop("head.weight"), state.best.pop("head.weight"))
    assert found == state

    other, its_optimizer = training(1)
    names = list(model.state_dict())
    assert not all(torch.equal(model.state_dict()[k], other.state_dict()[k]) for k in names)
    restore_parameters(other, tensors)
    restore_moments(its_optimizer, tensors)
    assert all(torch.equal(model.state_dict()[k], other.state_dict()[k]) for k in names)
    moments, its = (o.state_dict()["state"] for o in (optimizer, its_optimizer))
    assert moments.keys() == its.keys() != set()
    for index, values in moments.items():
        for key, value in values.items():
            # the file holds a scalar (step) as one number in a row
            assert torch.equal(value.reshape(-1), its[index][key].reshape(-1)), (index, key)


def test_another_run_is_refused(training, tmp_path):
    path = tmp_path / "a.checkpoint.safetensors"
    save_checkpoint(path, *training(0), TrainState(identity={"config": {"lr": 0.1}, "data": "d"}))
    with pytest.raises(DataError, match=r"another run: config\.lr was 0\.1, is 0\.2\. Resume"):
        load_checkpoint(path, {"config": {"lr": 0.2}, "data": "d"})
    with pytest.raises(DataError, match=r"data was 'd', is 'e'"):
        load_checkpoint(path, {"config": {"lr": 0.1}, "data": "e"})


def test_settings_that_came_later_stood_at_their_defaults(training, make_config, tmp_path):
    """A run of an older vptkit goes on, unless such a setting is used now."""
    whole = make_config(method="linear", augment="none").to_json()
    older = {key: value for key, value in whole.items() if key != "clip"}
    path = tmp_path / "a.checkpoint.safetensors"
    save_checkpoint(path, *training(0), TrainState(identity={"config": older}))
    assert load_checkpoint(path, {"config": whole})[0].identity["config"] == whole
    with pytest.raises(DataError, match=r"config\.clip was .*, is 9\.0"):
        load_checkpoint(path, {"config": {**whole, "clip": 9.0}})


def test_what_is_no_checkpoint(weights, tmp_path):
    with pytest.raises(DataError, match=r"not a vptkit\.checkpoint/1 file"):
        load_checkpoint(weights, {})
    (tmp_path / "a").write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError, match="truncated or damaged"):
        load_checkpoint(tmp_path / "a", {})
