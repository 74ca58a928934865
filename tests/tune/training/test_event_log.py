"""TensorBoard's logs, read back by TensorBoard itself."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

from vptkit.errors import MissingExtraError, OutputError  # noqa: E402
from vptkit.tune.training import event_log  # noqa: E402
from vptkit.tune.training.event_log import (  # noqa: E402
    EventLog,
    require_no_log,
    require_tensorboard,
)

RECORDS = [
    {"epoch": 0, "val_top1": 0.5, "val_loss": 1.0, "probe": {}},
    {"epoch": 1, "train_loss": 0.75, "train_top1": 0.5, "val_top1": None, "val_loss": None},
    {"epoch": 2, "train_loss": 0.5, "val_loss": math.nan, "cycle": 1, "part": "head"},
]


def scalars(folder):
    """Tag → [(step, value), …] of all files of a folder."""
    read = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    return {t: [(e.step, e.value) for e in read.Scalars(t)] for t in read.Tags()["scalars"]}


def rates(epoch):
    return {"head": 0.5 / epoch}


def test_epochs_are_steps(tmp_path):
    log = EventLog(tmp_path / "runs" / "é")
    log.epochs(RECORDS[:2], rates)
    log.epochs(RECORDS, rates)
    log.close()
    found = scalars(tmp_path / "runs" / "é")
    assert found["train/loss"] == [(1, 0.75), (2, 0.5)]
    assert found["train/accuracy"] == [(1, 0.5)]
    assert found["val/accuracy"] == [(0, 0.5)]
    assert found["val/loss"][0] == (0, 1.0)
    assert found["lr/head"] == [(1, 0.5), (2, 0.25)]
    assert (found["phase/cycle"], found["phase/head_alone"]) == ([(2, 1.0)], [(2, 1.0)])


def test_a_log_that_goes_on_has_no_point_twice(tmp_path):
    """Killed at any time: the next one writes all of it anew, and removes ours alone."""
    (tmp_path / "events.out.tfevents.1.somebody").write_bytes(b"")
    killed = EventLog(tmp_path)
    killed.epochs(RECORDS[:2], rates)
    killed.close()
    log = EventLog(tmp_path)
    log.epochs(RECORDS, rates)
    log.close()
    end = EventLog(tmp_path, more=True)
    rows = [{"lambda": 0.5, "val_top1": 0.25, "val_loss": None}]
    end.curve("lambda", "lambda", rows, "accuracy")
    settings = {"method": "ln", "lr": 0.5, "strict": True, "none": None, "more": {"a": 1}}
    end.outcome(settings, {"val_accuracy": 0.5, "test_accuracy": None})
    end.close()
    found = scalars(tmp_path)
    assert found["train/loss"] == [(1, 0.75), (2, 0.5)]
    assert found["lambda/val_accuracy"] == [(500, 0.25)]
    assert found["hparam/val_accuracy"] == [(0, 0.5)]
    assert "hparam/test_accuracy" not in found
    assert (tmp_path / "events.out.tfevents.1.somebody").exists()


def test_settings_are_hparams(tmp_path):
    log = EventLog(tmp_path)
    log.outcome({"method": "ln", "more": {"a": 1}}, {"val_map": 0.5})
    log.close()
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    assert any("hparams" in plugin for plugin in read.summary_metadata)
    content = read.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    assert b"method" in content
    assert b'{"a": 1}' in content


def test_several_labels_have_map(tmp_path):
    log = EventLog(tmp_path)
    log.epochs(RECORDS[:2], rates, several=True)
    log.close()
    assert {"val/map", "train/label_accuracy"} < set(scalars(tmp_path))


def test_two_runs_are_not_mixed(tmp_path):
    log = EventLog(tmp_path / "a")
    log.epochs(RECORDS, rates)
    log.close()
    require_no_log([tmp_path / "b"], resume=False, force=False)
    require_no_log([tmp_path / "a"], resume=True, force=False)
    require_no_log([tmp_path / "a"], resume=False, force=True)
    with pytest.raises(OutputError, match=r"logs of another run are there.*--force"):
        require_no_log([tmp_path / "b", tmp_path / "a"], resume=False, force=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="not a folder"):
        require_no_log([tmp_path / "file"], resume=True, force=True)
    with pytest.raises(OutputError, match="logs cannot be written there"):
        EventLog(tmp_path / "file" / "x").epochs(RECORDS, rates)


def test_a_missing_package_is_named(monkeypatch):
    require_tensorboard()
    monkeypatch.setattr(event_log, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"--tensorboard needs .*vptkit\[tensorboard\]"):
        require_tensorboard()
