"""`--tensorboard` of whole runs: killed and resumed, auto, a series of shots, a sweep."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")
pytest.importorskip("tensorboard")

from tests.support.serial_runner import Serial
from tests.support.tuning_runs import CYCLIC, Stop, names
from tests.tune.training.test_event_log import scalars
from vptkit.errors import MissingExtraError, OutputError, VptkitError
from vptkit.tune import tune
from vptkit.tune.run.few_shot_series import tune_shots
from vptkit.tune.sweep.run_sweep import sweep, sweep_from_mapping
from vptkit.tune.training import event_log

pytestmark = pytest.mark.slow


def test_a_killed_run_goes_on_in_the_same_log(splits, make_config, tmp_path):
    config = make_config(**CYCLIC, rescale="gamma", tensorboard=tmp_path / "whole")
    result = tune(splits, tmp_path / "whole.safetensors", config)
    other = replace(config, tensorboard=tmp_path / "runs" / "killed")
    output = tmp_path / "killed.safetensors"
    with pytest.raises(KeyboardInterrupt):
        tune(splits, output, other, progress=Stop(60))
    before = scalars(other.tensorboard)
    tune(splits, output, other, resume=True)
    found, whole = scalars(other.tensorboard), scalars(config.tensorboard)
    assert found == whole
    assert [step for step, _ in before["val/loss"]] == [0, 1, 2]
    epochs = [step for step, _ in found["val/loss"]]
    assert epochs == sorted(set(epochs))
    assert found["val/accuracy"][0][0] == 0
    assert found["lr/head"][0][0] == 1
    assert found["lr/norms"][0][0] == 3  # the head learned alone before
    assert found["phase/cycle"][-1][1] == 2
    curve = {round(1000 * row["lambda"]) for row in result.layer_norms["rescale"]["curve"]}
    assert {step for step, _ in found["lambda/val_accuracy"]} == curve
    assert found["hparam/val_accuracy"] == [(0, pytest.approx(result.val_top1))]
    tune(splits, output, other, resume=True)  # it is over: nothing is added
    assert scalars(other.tensorboard) == found
    with pytest.raises(OutputError, match="logs of another run"):
        tune(splits, tmp_path / "b.safetensors", other)


def test_every_candidate_has_its_folder(splits, make_config, tmp_path):
    config = make_config(method="auto", epochs=2, tensorboard=tmp_path / "runs")
    result = tune(splits, tmp_path / "a.safetensors", config)
    assert names(tmp_path / "runs") == {"linear", "ln", "vpt"}
    for row in result.auto["tried"]:
        found = scalars(tmp_path / "runs" / row["method"])
        assert [step for step, _ in found["val/loss"]] == list(range(row["epochs"] + 1))
        assert ("hparam/val_accuracy" in found) == (row["method"] == result.auto["kept"])


def test_every_number_of_shots_has_its_folder(splits, make_config, tmp_path):
    config = make_config(method="linear", tensorboard=tmp_path / "runs")
    tune_shots(splits, tmp_path / "a.safetensors", config, (2, 4))
    assert names(tmp_path / "runs") == {"2shot", "4shot"}


def test_every_trial_has_its_folder(splits, make_config, tmp_path):
    config = make_config()
    document = {
        "data": str(splits),
        "tune": {
            "backbone": config.backbone,
            "backbone_args": config.backbone_args,
            "weights": str(config.weights),
            "epochs": 1,
        },
        "space": {"method": ["ln", "linear"]},
    }
    swept = sweep_from_mapping(document, tensorboard=tmp_path / "runs")
    assert "tensorboard" not in swept.to_json()["tune"]  # it is the same sweep without
    sweep(swept, tmp_path / "out", Serial(tmp_path / "store"))
    assert names(tmp_path / "runs") == {"trial-0000", "trial-0001"}
    assert (tmp_path / "out" / "best.html").exists()
    with pytest.raises(VptkitError, match="tensorboard is not for a file to say"):
        sweep_from_mapping({**document, "tune": {"tensorboard": "x"}})


def test_without_the_package_nothing_begins(splits, make_config, tmp_path, monkeypatch):
    monkeypatch.setattr(event_log, "find_spec", lambda _: None)
    config = make_config(tensorboard=tmp_path / "runs")
    with pytest.raises(MissingExtraError, match=r"vptkit\[tensorboard\]"):
        tune(splits, tmp_path / "a.safetensors", config)
    assert names(tmp_path) == set()
