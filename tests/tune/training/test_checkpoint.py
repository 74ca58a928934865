"""Checkpoints: of another run, damaged, of an older vptkit, on a full disk."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from safetensors.torch import save_file  # noqa: E402

from tests.support.tuning_runs import Count, Stop, names  # noqa: E402
from vptkit.errors import DataError, OutputError  # noqa: E402
from vptkit.formats.tensor_file import read_tensor_file, write_tensors  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import spec_from_model  # noqa: E402
from vptkit.tune.methods.tuned_model import Tuned  # noqa: E402
from vptkit.tune.training.checkpoint import (  # noqa: E402
    load_checkpoint,
    restore_moments,
    restore_parameters,
    save_checkpoint,
)
from vptkit.tune.training.train_state import TrainState  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


def interrupted(splits, config, output: Path) -> Path:
    """A run that was stopped in its second epoch; its checkpoint."""
    with pytest.raises(KeyboardInterrupt):
        tune(splits, output, config, progress=Stop(30))
    return output.with_name(f"{output.stem}.checkpoint.safetensors")


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"lr": 0.5}, "config.lr was 0.005, is 0.5"),
        ({"epochs": 9}, "config.epochs was 2, is 9"),
        ({"seed": 3}, "config.seed was 0, is 3"),
        ({"method": "bpt"}, "config.method was 'vpt', is 'bpt'"),
    ],
)
def test_resume_with_other_settings_is_refused(splits, make_config, tmp_path, other, difference):
    output = tmp_path / "a.safetensors"
    checkpoint = interrupted(splits, make_config(method="vpt"), output)
    before = checkpoint.read_bytes()
    with pytest.raises(DataError, match="belongs to another run") as caught:
        tune(splits, output, make_config(**{"method": "vpt", **other}), resume=True)
    assert difference in str(caught.value)
    assert "--force" in str(caught.value)
    assert checkpoint.read_bytes() == before


def test_resume_with_other_data_or_weights_is_refused(
    splits, make_folders, make_config, make_vit, tmp_path
):
    output = tmp_path / "a.safetensors"
    config = make_config(method="vpt")
    interrupted(splits, config, output)
    for seed, name in enumerate(("train", "val", "test"), 50):
        make_folders(tmp_path / "other" / name, 8, seed)
    with pytest.raises(DataError, match=r"another run: data was '"):
        tune(tmp_path / "other", output, config, resume=True)
    save_file(make_vit(seed=9).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=r"another run: backbone was '"):
        tune(splits, output, replace(config, weights=tmp_path / "w.safetensors"), resume=True)


def test_a_moved_weights_file_is_the_same_run(splits, weights, make_config, tmp_path):
    output = tmp_path / "a.safetensors"
    config = make_config(method="vpt")
    interrupted(splits, config, output)
    (tmp_path / "moved.safetensors").write_bytes(weights.read_bytes())
    tune(splits, output, replace(config, weights=tmp_path / "moved.safetensors"), resume=True)
    assert output.exists()


@pytest.mark.parametrize("damage", ["truncated", "no checkpoint", "empty"])
def test_a_damaged_checkpoint_is_refused(splits, weights, make_config, tmp_path, damage):
    output = tmp_path / "a.safetensors"
    checkpoint = interrupted(splits, make_config(method="vpt"), output)
    content = checkpoint.read_bytes()
    damaged = {"truncated": content[:-9], "no checkpoint": weights.read_bytes(), "empty": b""}
    checkpoint.write_bytes(damaged[damage])
    with pytest.raises(DataError, match=r"a\.checkpoint\.safetensors"):
        tune(splits, output, make_config(method="vpt"), resume=True)
    assert not output.exists()


def test_a_checkpoint_without_resume_is_refused(splits, make_config, tmp_path):
    output = tmp_path / "a.safetensors"
    config = make_config(method="vpt", name="x")
    checkpoint = interrupted(splits, config, output)
    with pytest.raises(OutputError, match=r"a\.checkpoint.*--resume.*--force"):
        tune(splits, output, config)
    assert checkpoint.exists()
    forced = tune(splits, output, config, force=True)
    fresh = tune(splits, tmp_path / "fresh.safetensors", config)
    assert forced.adapter.read_bytes() == fresh.adapter.read_bytes()
    assert not checkpoint.exists()


def test_force_with_bad_input_keeps_the_checkpoint(splits, make_config, tmp_path):
    """A slip in the path of the data must not cost a night's training."""
    config = make_config(method="vpt")
    checkpoint = interrupted(splits, config, tmp_path / "a.safetensors")
    with pytest.raises(DataError):
        tune(tmp_path / "nowhere", tmp_path / "a.safetensors", config, force=True)
    assert checkpoint.exists()


def test_a_checkpoint_of_an_older_vptkit(splits, make_config, tmp_path):
    """Settings that it did not know stood at their defaults."""
    from vptkit.formats.tensor_file import read_metadata, read_tensors

    config = make_config(method="vpt", name="x", epochs=3)
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    output = tmp_path / "b.safetensors"
    with pytest.raises(KeyboardInterrupt):
        tune(splits, output, config, progress=Stop(30))
    path = tmp_path / "b.checkpoint.safetensors"
    document = json.loads(read_metadata(path, DataError)["vptkit"])
    for key in ("lr_ln", "cycles", "head_epochs", "ln_epochs", "rescale", "refit_epochs"):
        del document["identity"]["config"][key]
    tensors = {name: np.array(value) for name, value in read_tensors(path, DataError).items()}
    write_tensors(path, tensors, ("vptkit", json.dumps(document)))
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"config\.lr was 0\.005, is 0\.5"):
        tune(splits, output, make_config(method="vpt", name="x", epochs=3, lr=0.5), resume=True)
    assert path.read_bytes() == before
    tune(splits, output, config, resume=True)
    assert output.read_bytes() == whole.adapter.read_bytes()


def test_a_full_disk_keeps_the_earlier_checkpoint(splits, make_config, tmp_path, monkeypatch):
    config = make_config(method="vpt", epochs=3, name="x", head_init="zero")
    output = tmp_path / "a.safetensors"
    real = os.fsync

    def full(descriptor: int) -> None:
        if (tmp_path / "a.checkpoint.safetensors").exists():  # that of the first epoch fits
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left on device") as caught:
            tune(splits, output, config)
    assert caught.value.exit_code == 2
    assert names(tmp_path) == {"a.checkpoint.safetensors", "a.metrics.jsonl"}
    bar = Count()
    resumed = tune(splits, output, config, resume=True, progress=bar)
    assert bar.done == 2 * 24
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    assert resumed.adapter.read_bytes() == whole.adapter.read_bytes()


def test_the_system_refuses_to_write(splits, make_config, tmp_path):
    """Not a patched function: the kernel itself refuses files of more than two kilobytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
        with pytest.raises(OutputError, match=r"a\.safetensors: cannot be written"):
            tune(splits, tmp_path / "a.safetensors", make_config(method="vpt"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) <= {"a.metrics.jsonl"}


RECORD = {"train_loss": 1.0, "train_top1": 0.5, "val_top1": 0.5, "val_loss": 1.5}


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
        epoch=2,
        history=[RECORD | {"epoch": 1, "val_loss": 0.1 + 0.2}, RECORD | {"epoch": 2}],
        best_epoch=2,
        best={name: value + 0.7 for name, value in model.state_dict().items()},
        scaler=torch.amp.GradScaler("cpu").state_dict(),
    )
    path = tmp_path / "a.checkpoint.safetensors"
    save_checkpoint(path, model, optimizer, state)
    found, tensors = load_checkpoint(path, state.identity)
    assert found.best.keys() == state.best.keys()
    assert all(torch.equal(found.best.pop(name), state.best.pop(name)) for name in [*state.best])
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


# forged --------------------------------------------------------------------------------------------


WALKED = {"config": {"rescale": "all"}}  # the identity of a run that needs its start


@pytest.fixture
def walked(training, tmp_path):
    """A function: a checkpoint of a run with `rescale` all, whose tensors were changed."""

    def make(change=lambda _: None, identity=WALKED):
        path = tmp_path / "a.checkpoint.safetensors"
        model, optimizer = training(0)
        start = {name: value + 0.5 for name, value in model.state_dict().items()}
        save_checkpoint(path, model, optimizer, TrainState(identity, start_parameters=start))
        metadata, tensors = read_tensor_file(path, DataError)
        change(tensors)
        write_tensors(path, tensors, ("vptkit", metadata["vptkit"]))
        return path, start

    return make


def test_the_start_of_the_line_comes_back(walked, training):
    path, start = walked()
    state, tensors = load_checkpoint(path, WALKED)
    restore_parameters(training(1)[0], tensors)
    assert state.start_parameters.keys() == start.keys()
    assert all(torch.equal(state.start_parameters[name], start[name]) for name in start)


@pytest.mark.slow
def test_it_is_kept_where_there_is_a_line_alone(splits, make_config, tmp_path):
    for rescale in ("none", "all"):
        config = make_config(method="vpt", rescale=rescale)
        checkpoint = interrupted(splits, config, tmp_path / f"{rescale}.safetensors")
        found = read_tensor_file(checkpoint, DataError)[1]
        kinds = {name.split(".")[0] for name in found}
        assert kinds == {"param", "best", "adam"} | ({"start"} if rescale == "all" else set())


def lost(tensors):
    for name in [name for name in tensors if name.startswith("start.")]:
        del tensors[name]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lost, "lacks the parameters of the start"),
        (lambda t: t.pop("start.head.bias"), "the parameter 'head.bias' is missing"),
        (lambda t: t.update({"start.x": np.zeros(1, np.float32)}), "the parameter 'x' is missing"),
        (lambda t: t.update({"start.head.bias": np.zeros(4, np.float32)}), r"float32 \(4,\)"),
    ],
)
def test_a_start_that_is_damaged(walked, training, change, problem):
    path, _ = walked(change)
    with pytest.raises(DataError, match=f"damaged checkpoint.*{problem}"):
        restore_parameters(training(1)[0], load_checkpoint(path, WALKED)[1])


def test_a_start_where_none_belongs(walked):
    path, _ = walked(identity={"config": {"rescale": "none"}})
    with pytest.raises(DataError, match="damaged checkpoint: has the parameters of the start"):
        load_checkpoint(path, {"config": {"rescale": "none"}})


@pytest.fixture
def forged(training, tmp_path):
    """A function: a whole checkpoint whose document or tensors were changed."""

    def make(change=None, **fields):
        path = tmp_path / "a.checkpoint.safetensors"
        model, optimizer = training(0)
        state = TrainState(
            identity={"data": "d"},
            epoch=1,
            history=[RECORD | {"epoch": 1}],
            best_epoch=1,
            best=model.state_dict(),
        )
        save_checkpoint(path, model, optimizer, state)
        metadata, tensors = read_tensor_file(path, DataError)
        document = json.loads(metadata["vptkit"]) | fields
        if change is not None:
            change(tensors)
        write_tensors(path, tensors, ("vptkit", json.dumps(document)))
        return path

    return make


def resume(path, training):
    """As `tune --resume` goes on from it."""
    model, optimizer = training(1)
    _, tensors = load_checkpoint(path, {"data": "d"})
    restore_parameters(model, tensors)
    restore_moments(optimizer, tensors)


def test_an_unchanged_one_is_taken(forged, training):
    resume(forged(), training)


@pytest.mark.parametrize(
    "fields",
    [
        *({"epoch": value} for value in (-1, 2, 10**9, 1.0, True, "1", None, [1])),
        *({"best_epoch": value} for value in (-1, 2, 1.0, None, "1", {})),
        *({"history": value} for value in ([], {}, None, [1], [[]], [{}], "x", [RECORD] * 2)),
        {"history": [RECORD | {"epoch": 1, "val_top1": []}]},
        {"history": [RECORD | {"epoch": 1, "val_loss": None}]},
        *({"whitening": value} for value in (None, {}, [1], "x")),
        *({"scaler": value} for value in (None, [], {"scale": 1.0}, {"scale": [1]}, 3)),
        *({"identity": value} for value in (None, [], "d", {"config": 3}, {"config": []})),
        {"format": ["vptkit.checkpoint/1"]},
    ],
)
def test_a_field_of_another_kind(forged, training, fields):
    path = forged(**fields)
    with pytest.raises(DataError, match=r"a\.checkpoint\.safetensors: (damaged|not a|belongs)"):
        resume(path, training)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": NaN}', "[]", "3", "{", '{"epoch": 1e999}'])
def test_a_document_that_is_none(forged, training, text):
    path = forged()
    write_tensors(path, read_tensor_file(path, DataError)[1], ("vptkit", text))
    with pytest.raises(DataError, match=r"a\.checkpoint\.safetensors: not (valid JSON|a JSON obj)"):
        resume(path, training)


def renamed(old, new):
    return lambda tensors: tensors.update({new: tensors.pop(old)})


def replaced(name, value):
    return lambda tensors: tensors.update({name: value})


@pytest.mark.parametrize(
    "change",
    [
        renamed("param.head.weight", "param.head.gone"),
        renamed("best.head.weight", "best.head.gone"),
        replaced("param.more", np.zeros(3, np.float32)),
        replaced("param.head.weight", np.zeros((3, 31), np.float32)),
        replaced("param.head.weight", np.zeros((3, 32), np.int64)),
        replaced("best.head.bias", np.zeros(4, np.float32)),
        replaced("adam.x.step", np.zeros(1, np.float32)),
        replaced("adam.0", np.zeros(1, np.float32)),
        replaced("adam.0.step.more", np.zeros(1, np.float32)),
        replaced("adam.99.step", np.zeros(1, np.float32)),
        replaced("adam.-1.step", np.zeros(1, np.float32)),
        replaced("adam.0.exp_avg", np.zeros(1, np.float32)),
        replaced("adam.0.step", np.zeros(2, np.float32)),
        replaced("adam.0.max_exp_avg_sq", np.zeros(1, np.float32)),
        lambda tensors: tensors.pop("adam.0.step"),
        lambda tensors: [tensors.pop(name) for name in [*tensors] if name.startswith("best.")],
    ],
)
def test_tensors_of_something_else(forged, training, change):
    path = forged(change)
    with pytest.raises(DataError, match="damaged checkpoint"):
        resume(path, training)


def test_a_link_in_its_place_is_not_followed(forged, training, tmp_path):
    path = forged()
    path.rename(tmp_path / "elsewhere.safetensors")
    path.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(DataError, match="a symbolic link, expected a regular file"):
        resume(path, training)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="a FIFO, expected a regular file"):
        resume(path, training)
