"""Whole training runs on tiny data: what they write, how they resume, how they fail."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from safetensors.torch import load_file, save_file  # noqa: E402

from tests.support.children import run_child  # noqa: E402
from tests.support.marks import quick_if  # noqa: E402
from vptkit.errors import BackboneError, DataError, OutputError, VptkitError  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.backbone.reference import reference_logits  # noqa: E402
from vptkit.tune.data.splits import load_splits  # noqa: E402
from vptkit.tune.training.phased_training import whitened  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

METHODS = [
    {"method": "linear"},
    {"method": "linear", "augment": "crop"},
    {"method": "vpt", "insert": "deep"},
    {"method": "vpt", "insert": "shallow", "augment": "none"},
    {"method": "bpt", "form": "bilinear"},
    {"method": "bpt", "form": "bilinear", "insert": "shallow", "b_init": "whiten"},
    {"method": "bpt", "form": "bilinear", "b_init": "whiten", "tap": "post_ln1"},
    {"method": "bpt", "form": "fwhiten", "insert": "shallow"},
    {"method": "bpt", "form": "fwhiten", "pool": "avg_prompts", "norm": "after_pool"},
    {"method": "bpt", "form": "twhiten", "pool": "avg"},
    {"method": "bpt", "form": "twhiten", "insert": "shallow", "compat": "released"},
    {"method": "bpt", "form": "bilinear", "b_init": "whiten", "compat": "released"},
]


class Stop:
    """A progress that raises after some images."""

    def __init__(self, after: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.total: int | None = None
        self._left, self._error = after, error

    def update(self, advance: int = 1, text: str = "") -> None:
        self._left -= advance
        if self._left <= 0:
            raise self._error


class Count:
    """A progress that takes notes."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.done, self.texts = 0, []

    def update(self, advance: int = 1, text: str = "") -> None:
        self.done += advance
        self.texts.append(text)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("settings", METHODS, ids=lambda s: "-".join(map(str, s.values())))
def test_end_to_end(splits, weights, make_config, tmp_path, settings):
    config = make_config(**settings)
    bar = Count()
    result = tune(splits, tmp_path / "a.safetensors", config, progress=bar)

    adapter = read_adapter(tmp_path / "a.safetensors")
    assert (adapter.name, adapter.labels) == ("a", ("blue", "green", "red"))
    assert adapter.method == settings["method"]
    linear = settings["method"] == "linear"
    assert adapter.insert == ("none" if linear else settings.get("insert", "deep"))
    assert adapter.prompt_length == (0 if linear else 3)
    assert adapter.pool == settings.get("pool", "token")
    assert adapter.norm == settings.get("norm", "before_pool")

    images, logits = adapter.golden()
    assert images.shape == (3, 32, 32, 3)
    again = reference_logits(tmp_path / "a.safetensors", weights, images)
    np.testing.assert_allclose(again, logits, rtol=1e-5, atol=1e-5 * np.abs(logits).max())

    records = [json.loads(line) for line in result.metrics.read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    keys = {"epoch", "train_loss", "train_top1", "val_top1", "val_loss"}
    assert all(set(record) == keys for record in records)
    best = max(records, key=lambda r: (r["val_top1"], -r["val_loss"]))
    assert result.best_epoch == best["epoch"]
    assert result.val_top1 == best["val_top1"] == adapter.train["val_top1"]

    assert result.curves.read_bytes().startswith(b"\x89PNG")
    assert names(tmp_path) == {"a.safetensors", "a.metrics.jsonl", "a.curves.png"}
    assert bar.done == bar.total == 2 * 24
    assert "epoch 2/2 loss" in bar.texts[-1]
    json.dumps(result.to_json(), allow_nan=False)

    stored = sum(v.size for k, v in adapter.tensors.items() if k.startswith("head"))
    assert result.trainable - result.trainable_prompts == stored == 3 * 33
    assert (result.trainable_prompts == 0) == linear


def test_the_reported_accuracies_are_those_of_the_adapter(splits, weights, make_config, tmp_path):
    result = tune(splits, tmp_path / "a.safetensors", make_config(epochs=4))
    from vptkit.tune.data.dataset import DataSet

    adapter = read_adapter(result.adapter)
    _, found = load_splits(splits, 0, 0.15, 0.15)
    for name, reported in (("val", result.val_top1), ("test", result.test_top1)):
        data = DataSet(found[name], adapter.preprocess)
        images, targets = next(data.evaluation_batches(100))
        logits = reference_logits(result.adapter, weights, images)
        assert (logits.argmax(1) == targets).mean() == pytest.approx(reported)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(0.5, 1.0), (0.9, 1.0), (0.1, 0.1)], 2),  # accuracy decides, not loss, not the last
        ([(0.5, 1.0), (0.5, 0.9), (0.5, 0.95)], 2),  # then loss
        ([(0.5, 1.0), (0.5, 1.0), (0.5, 1.0)], 1),  # then the earlier one
    ],
)
def test_the_best_epoch_is_kept(splits, make_config, tmp_path, monkeypatch, scores, best):
    heads, left = [], list(scores)

    def scripted(model, *_):
        heads.append(model.head.weight.detach().clone())
        return left.pop(0)

    monkeypatch.setattr("vptkit.tune.training.phased_training.evaluate", scripted)
    result = tune(splits, tmp_path / "a.safetensors", make_config(method="vpt", epochs=3))
    assert (result.best_epoch, result.val_top1) == (best, scores[best - 1][0])
    kept = read_adapter(result.adapter).tensors["head.weight"]
    assert [np.array_equal(kept, head) for head in heads] == [i == best for i in (1, 2, 3)]


def test_test_is_null_without_a_test_split(make_folders, make_config, tmp_path):
    for name in ("train", "val"):
        make_folders(tmp_path / "d" / name, 3)
    result = tune(tmp_path / "d", tmp_path / "a.safetensors", make_config(epochs=1, method="vpt"))
    assert result.test_top1 is None
    assert result.to_json()["test_top1"] is None
    assert read_adapter(result.adapter).train["test_top1"] is None


def test_the_same_run_gives_the_same_bytes(make_folders, make_config, tmp_path):
    folder = make_folders(tmp_path / "d", 6)
    config = make_config(form="fwhiten", name="same")
    first = tune(folder, tmp_path / "a.safetensors", config)
    second = tune(folder, tmp_path / "b.safetensors", config)
    third = tune(folder, tmp_path / "c.safetensors", replace(config, seed=1))
    assert first.adapter.read_bytes() == second.adapter.read_bytes()
    assert first.adapter.read_bytes() != third.adapter.read_bytes()


def test_other_families(splits, make_config, make_vit, tmp_path):
    """Registers and LayerScale; average pooling behind the norm is taken over from timm."""
    arguments = {"reg_tokens": 2, "init_values": 0.1, "no_embed_class": True, "global_pool": "avg"}
    model = make_vit(**arguments)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    config = make_config(
        backbone_args={**make_config().backbone_args, **arguments},
        weights=tmp_path / "w.safetensors",
        epochs=1,
    )
    result = tune(splits, tmp_path / "a.safetensors", config)
    adapter = read_adapter(result.adapter)
    assert (adapter.pool, adapter.norm) == ("avg", "after_pool")
    images, logits = adapter.golden()
    again = reference_logits(result.adapter, tmp_path / "w.safetensors", images)
    np.testing.assert_allclose(again, logits, rtol=1e-5, atol=1e-5)


def test_whitening_without_enough_tokens(splits, make_config, tmp_path):
    """Fewer directions than the width: the figures in the file stay numbers."""
    for compat in ("paper", "released"):
        config = make_config(form="fwhiten", whiten_images=1, compat=compat, epochs=1)
        result = tune(splits, tmp_path / f"{compat}.safetensors", config)
        noted = read_adapter(result.adapter).train["whitening"]
        assert len(noted) == 2
        assert all(note["rank"] < 32 for note in noted)


def test_the_images_of_the_whitening_do_not_depend_on_the_batch(splits, make_config, make_vit):
    from vptkit.tune.backbone.timm_backbone import preprocess_of
    from vptkit.tune.data.dataset import DataSet

    model = make_vit()
    data = DataSet(load_splits(splits, 0, 0.15, 0.15)[1]["train"], preprocess_of(model))
    full, _ = whitened(model, data, make_config(form="fwhiten", whiten_images=500))
    fewer, _ = whitened(model, data, make_config(form="fwhiten", whiten_images=5))
    again, notes = whitened(model, data, make_config(form="fwhiten", whiten_images=5))
    assert torch.equal(fewer[0], again[0])
    assert not torch.allclose(fewer[0], full[0])
    assert set(notes[0]) == {"rank", "condition", "condition_is_bound", "row_norm"}


# ---- resume -------------------------------------------------------------------------------------

RESUMED = [
    {"method": "linear"},
    {"method": "vpt", "dropout": 0.3},
    {"method": "bpt", "form": "twhiten", "dropout": 0.1},
    {"method": "bpt", "form": "bilinear", "b_init": "whiten", "augment": "crop"},
    {"method": "bpt", "form": "fwhiten", "insert": "shallow", "compat": "released"},
]


@pytest.mark.parametrize(
    "settings",
    quick_if(RESUMED[:2].__contains__, RESUMED),
    ids=lambda s: "-".join(map(str, s.values())),
)
def test_a_killed_run_resumes_to_the_same_bytes(splits, make_config, tmp_path, settings):
    config = make_config(**settings, epochs=4, name="x", batch_size=9)
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    for name, after in (("b", 24 + 10), ("c", 3 * 24 - 1)):  # in the second, and in the third epoch
        output = tmp_path / f"{name}.safetensors"
        with pytest.raises(KeyboardInterrupt):
            tune(splits, output, config, progress=Stop(after))
        assert not output.exists()
        assert (tmp_path / f"{name}.checkpoint.safetensors").exists()
        bar = Count()
        result = tune(splits, output, config, resume=True, progress=bar)
        assert bar.done < 4 * 24
        assert bar.done == bar.total
        assert output.read_bytes() == whole.adapter.read_bytes()
        assert result.metrics.read_bytes() == whole.metrics.read_bytes()
        assert not (tmp_path / f"{name}.checkpoint.safetensors").exists()


def test_resuming_twice(splits, make_config, tmp_path):
    config = make_config(method="vpt", epochs=4, name="x")
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    output = tmp_path / "b.safetensors"
    for _ in range(3):  # each gets one epoch further
        with pytest.raises(KeyboardInterrupt):
            tune(splits, output, config, resume=True, progress=Stop(30))
    tune(splits, output, config, resume=True)
    assert output.read_bytes() == whole.adapter.read_bytes()


def test_resume_without_a_checkpoint_just_runs(splits, make_config, tmp_path):
    config = make_config(method="linear", name="x")
    first = tune(splits, tmp_path / "a.safetensors", config, resume=True)
    second = tune(splits, tmp_path / "b.safetensors", config)
    assert first.adapter.read_bytes() == second.adapter.read_bytes()


@pytest.mark.parametrize("settings", [{"form": "twhiten"}, {"method": "ln", "rescale": "gamma"}])
def test_resume_of_a_finished_run_is_its_result(splits, make_config, tmp_path, settings):
    config, output = make_config(**settings, name="x"), tmp_path / "a.safetensors"
    first = tune(splits, output, config)
    before = output.stat().st_mtime_ns
    again = tune(splits, output, config, resume=True)
    assert replace(again, seconds=0) == replace(first, seconds=0)
    assert output.stat().st_mtime_ns == before
    with pytest.raises(OutputError, match=r"a\.safetensors: exists already, of other settings"):
        tune(splits, output, replace(config, seed=1), resume=True)
    with pytest.raises(OutputError, match=r"a\.safetensors: exists already\. Pass"):
        tune(splits, output, config)
    changed = tune(splits, output, replace(config, seed=1), resume=True, force=True)
    assert read_adapter(changed.adapter).train["config"]["seed"] == 1


def test_a_run_killed_behind_its_last_epoch_resumes(splits, make_config, tmp_path, monkeypatch):
    config = make_config(method="vpt", name="x")
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    with monkeypatch.context() as patch:
        patch.setattr(
            "vptkit.tune.run.tune_run._golden", lambda *_: (_ for _ in ()).throw(SystemExit)
        )
        with pytest.raises(SystemExit):
            tune(splits, tmp_path / "b.safetensors", config)
    result = tune(splits, tmp_path / "b.safetensors", config, resume=True)
    assert result.adapter.read_bytes() == whole.adapter.read_bytes()


def test_a_kill_between_checkpoint_and_metrics_loses_no_record(
    splits, make_config, tmp_path, monkeypatch
):
    """The process may die between any two writes of an epoch, also of the last one."""
    config = make_config(method="vpt", name="x")
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    real, calls = os.fsync, []

    def killed(descriptor: int) -> None:
        real(descriptor)
        calls.append(descriptor)
        if len(calls) == stop:
            raise SystemExit

    for stop in (1, 2, 3, 4):
        calls.clear()
        output = tmp_path / f"{stop}.safetensors"
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", killed)
            with pytest.raises(SystemExit):
                tune(splits, output, config)
        result = tune(splits, output, config, resume=True)
        assert result.metrics.read_bytes() == whole.metrics.read_bytes(), stop
        assert output.read_bytes() == whole.adapter.read_bytes(), stop


KILLED = """
import os, signal, sys
from pathlib import Path
from vptkit.tune import config_from_mapping, tune
import json, torch
torch.set_num_threads(1)

class Kill:
    total = None
    left = 30
    def update(self, advance=1, text=""):
        self.left -= advance
        if self.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

data, output, settings = sys.argv[1:]
tune(Path(data), Path(output), config_from_mapping(json.loads(settings)), progress=Kill())
"""


@pytest.mark.slow
def test_sigkill(splits, weights, make_config, tmp_path):
    """No handler runs, no file is closed; the next process goes on to the same bytes."""
    config = make_config(method="vpt", name="x", epochs=3)
    settings = {**config.to_json(), "weights": str(weights), "name": "x"}
    output = tmp_path / "k.safetensors"
    arguments = [str(splits), str(output), json.dumps(settings)]
    done = run_child([sys.executable, "-c", KILLED, *arguments], check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not output.exists()
    resumed = tune(splits, output, config, resume=True)
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    assert resumed.adapter.read_bytes() == whole.adapter.read_bytes()
    assert resumed.metrics.read_bytes() == whole.metrics.read_bytes()


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
    config = make_config(method="linear")
    interrupted(splits, config, output)
    (tmp_path / "moved.safetensors").write_bytes(weights.read_bytes())
    tune(splits, output, replace(config, weights=tmp_path / "moved.safetensors"), resume=True)
    assert output.exists()


@pytest.mark.parametrize("damage", ["truncated", "no checkpoint", "empty"])
def test_a_damaged_checkpoint_is_refused(splits, weights, make_config, tmp_path, damage):
    output = tmp_path / "a.safetensors"
    checkpoint = interrupted(splits, make_config(method="linear"), output)
    content = checkpoint.read_bytes()
    damaged = {"truncated": content[:-9], "no checkpoint": weights.read_bytes(), "empty": b""}
    checkpoint.write_bytes(damaged[damage])
    with pytest.raises(DataError, match=r"a\.checkpoint\.safetensors"):
        tune(splits, output, make_config(method="linear"), resume=True)
    assert not output.exists()


def test_a_checkpoint_without_resume_is_refused(splits, make_config, tmp_path):
    output = tmp_path / "a.safetensors"
    config = make_config(method="linear", name="x")
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
    config = make_config(method="linear")
    checkpoint = interrupted(splits, config, tmp_path / "a.safetensors")
    with pytest.raises(DataError):
        tune(tmp_path / "nowhere", tmp_path / "a.safetensors", config, force=True)
    assert checkpoint.exists()


# ---- what goes wrong ----------------------------------------------------------------------------


def test_an_existing_output_is_refused_first(make_config, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"a\.safetensors: exists already.*--force"):
        tune(tmp_path / "nowhere", tmp_path / "a.safetensors", make_config())
    assert (tmp_path / "a.safetensors").read_bytes() == b"precious"


def test_force_replaces(splits, make_config, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"old")
    tune(splits, tmp_path / "a.safetensors", make_config(method="linear"), force=True)
    assert read_adapter(tmp_path / "a.safetensors").method == "linear"


@pytest.mark.parametrize("name", ["a.onnx", "a", "missing/a.safetensors"])
def test_an_output_that_cannot_be(make_config, tmp_path, name):
    with pytest.raises(OutputError, match=r"\.safetensors|does not exist"):
        tune(tmp_path, tmp_path / name, make_config())


def test_a_folder_as_output_is_refused_before_the_training(splits, make_config, tmp_path):
    (tmp_path / "a.safetensors").mkdir()
    bar = Count()
    with pytest.raises(OutputError, match=r"a\.safetensors"):
        tune(splits, tmp_path / "a.safetensors", make_config(), force=True, progress=bar)
    assert bar.done == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 9e29, "epochs": 3},
        {"lr": 9e29, "epochs": 1, "batch_size": 100},  # in the very last step
    ],
    ids=["in training", "in validation"],
)
def test_a_loss_that_is_not_finite(splits, make_config, tmp_path, settings):
    with pytest.raises(VptkitError, match=r"loss became (nan|inf).*lower --lr"):
        tune(splits, tmp_path / "a.safetensors", make_config(**settings, warmup=0))
    assert not (tmp_path / "a.safetensors").exists()


def test_ctrl_c_leaves_nothing_half_written(splits, make_config, tmp_path):
    config = make_config(method="vpt")
    with pytest.raises(KeyboardInterrupt):
        tune(splits, tmp_path / "a.safetensors", config, progress=Stop(1))
    assert names(tmp_path) == set()
    with pytest.raises(KeyboardInterrupt):
        tune(splits, tmp_path / "a.safetensors", config, progress=Stop(30))
    assert names(tmp_path) == {"a.checkpoint.safetensors", "a.metrics.jsonl"}


def test_a_full_disk_keeps_the_earlier_checkpoint(splits, make_config, tmp_path, monkeypatch):
    config = make_config(method="vpt", epochs=3, name="x")
    output = tmp_path / "a.safetensors"
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 2:  # checkpoint and metrics of the first epoch fit
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
        with pytest.raises(OutputError, match=r"a\.checkpoint\.safetensors: cannot be written"):
            tune(splits, tmp_path / "a.safetensors", make_config(method="vpt"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) <= {"a.metrics.jsonl"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"backbone": "vit_of_my_own"}, "timm has no model of this name"),
        ({"backbone_args": {"colour": 3}}, "colour"),
        ({"backbone_args": {"img_size": -32}}, "img_size"),
        ({"backbone_args": {"img_size": "32"}}, "img_size"),
        ({"backbone_args": {"act_layer": "nonsense"}}, "nonsense"),
    ],
)
def test_a_backbone_that_cannot_be_built(splits, make_config, tmp_path, overrides, message):
    arguments = {**make_config().backbone_args, **overrides.get("backbone_args", {})}
    config = make_config(**{**overrides, "backbone_args": arguments})
    with pytest.raises(BackboneError, match=message) as caught:
        tune(splits, tmp_path / "a.safetensors", config)
    assert "could not be fetched" not in str(caught.value)
    assert names(tmp_path) == set()


def test_an_unsupported_feature_is_named(splits, make_config, make_vit, tmp_path):
    save_file(make_vit(act_layer="relu").state_dict(), tmp_path / "w.safetensors")
    arguments = {**make_config().backbone_args, "act_layer": "relu"}
    config = make_config(backbone_args=arguments, weights=tmp_path / "w.safetensors")
    with pytest.raises(BackboneError, match="vit_tiny_patch16_224: not supported yet: act_layer"):
        tune(splits, tmp_path / "a.safetensors", config)


@pytest.mark.parametrize("damage", ["truncated", "nan", "missing", "misshapen", "absent"])
def test_weights_that_do_not_fit(splits, weights, make_config, tmp_path, damage):
    path = tmp_path / "w.safetensors"
    state = load_file(weights)
    if damage == "nan":
        state["blocks.1.mlp.fc1.bias"][3] = float("nan")
    elif damage == "missing":
        del state["blocks.1.mlp.fc1.bias"]
    elif damage == "misshapen":
        state["blocks.1.mlp.fc1.bias"] = torch.zeros(5)
    if damage != "absent":
        save_file(state, path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(BackboneError, match=r"w\.safetensors: ") as caught:
        tune(splits, tmp_path / "a.safetensors", make_config(weights=path))
    if damage in ("nan", "missing", "misshapen"):
        assert "blocks.1.mlp.fc1.bias" in str(caught.value)


def test_pooling_a_class_token_that_is_not_there(splits, make_config, make_vit, tmp_path):
    arguments = {"class_token": False, "global_pool": "avg"}
    save_file(make_vit(**arguments).state_dict(), tmp_path / "w.safetensors")
    config = make_config(
        backbone_args={**make_config().backbone_args, **arguments},
        weights=tmp_path / "w.safetensors",
        pool="token",
    )
    with pytest.raises(VptkitError, match="class token"):
        tune(splits, tmp_path / "a.safetensors", config)


def test_a_seed_that_is_too_large(splits, make_config, tmp_path):
    with pytest.raises(VptkitError, match=f"seed is {2**70}"):
        make_config(seed=2**70)
    result = tune(splits, tmp_path / "a.safetensors", make_config(seed=2**63 - 1, epochs=1))
    assert result.adapter.exists()


def test_a_broken_image_stops_the_run_by_name(make_folders, make_config, tmp_path):
    for name in ("train", "val"):
        make_folders(tmp_path / "d" / name, 4)
    (tmp_path / "d" / "train" / "red" / "2.png").write_bytes(b"\x89PNG no more")
    for settings in ({"method": "linear"}, {"method": "bpt"}, {"form": "fwhiten"}):
        with pytest.raises(DataError, match=r"train/red/2\.png"):
            tune(tmp_path / "d", tmp_path / "a.safetensors", make_config(**settings))
    assert names(tmp_path) == {"d"}
