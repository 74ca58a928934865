"""Whole tuning runs on tiny data: what they write, how they fail."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from safetensors.torch import save_file  # noqa: E402

from tests.support.tuning_runs import Count, Stop, names  # noqa: E402
from vptkit.errors import OutputError, TrainingError, VptkitError  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune.backbone.reference import reference_logits  # noqa: E402
from vptkit.tune.data.splits import load_splits  # noqa: E402
from vptkit.tune.run.tune_run import tune  # noqa: E402

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
    {"method": "linear", "pool": "token+avg"},
    {"method": "vpt", "pool": "token+avg", "norm": "after_pool"},
    {"method": "bpt", "form": "twhiten", "insert": "shallow", "compat": "released"},
    {"method": "bpt", "form": "bilinear", "b_init": "whiten", "compat": "released"},
]


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
    assert [record["epoch"] for record in records] == ([0] if linear else [0, 1, 2])
    assert set(records[0]) == {"epoch", "val_top1", "val_loss", "probe"}
    keys = {"epoch", "train_loss", "train_top1", "val_top1", "val_loss"}
    assert all(set(record) == keys for record in records[1:])
    best = max(records, key=lambda r: (-r["val_loss"], r["val_top1"]))
    assert result.best_epoch == best["epoch"]
    assert result.val_top1 == best["val_top1"] == adapter.train["val_top1"]

    assert result.page == tmp_path / "a.html"
    assert names(tmp_path) == {"a.safetensors", "a.metrics.jsonl", "a.html"}
    assert bar.done == bar.total == (0 if linear else 2 * 24)
    assert linear or "epoch 2/2 loss" in bar.texts[-1]
    json.dumps(result.to_json(), allow_nan=False)

    inputs = 64 if adapter.pool == "token+avg" else 32
    stored = sum(v.size for k, v in adapter.tensors.items() if k.startswith("head"))
    assert result.trainable - result.trainable_prompts == stored == 3 * inputs + 3
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
def test_a_loss_that_is_not_finite_ends_the_training_and_the_probe_is_kept(
    splits, make_config, tmp_path, settings
):
    result = tune(splits, tmp_path / "a.safetensors", make_config(**settings, warmup=0))
    assert result.best_epoch == 0
    wanted = r"diverged: the loss became (nan|inf) in epoch 1\. The linear probe .*kept: lower --lr"
    assert re.match(f"the training {wanted}", result.warnings[0])
    assert read_adapter(result.adapter).train["warnings"] == list(result.warnings)


def test_a_loss_that_is_not_finite_and_nothing_to_keep(splits, make_config, tmp_path):
    config = make_config(lr=9e29, epochs=1, warmup=0, head_init="zero")
    with pytest.raises(
        TrainingError, match=r"loss became (nan|inf) in epoch 1: lower --lr"
    ) as caught:
        tune(splits, tmp_path / "a.safetensors", config)
    assert caught.value.exit_code == 3
    assert names(tmp_path) == set()


def test_ctrl_c_leaves_nothing_half_written(splits, make_config, tmp_path):
    config = make_config(method="vpt")
    with pytest.raises(KeyboardInterrupt):
        tune(splits, tmp_path / "a.safetensors", config, progress=Stop(1))
    assert names(tmp_path) == {"a.checkpoint.safetensors", "a.metrics.jsonl"}  # the probe
    record = json.loads((tmp_path / "a.metrics.jsonl").read_text())
    assert record["epoch"] == 0
    with pytest.raises(KeyboardInterrupt):
        tune(splits, tmp_path / "a.safetensors", config, resume=True, progress=Stop(30))
    assert names(tmp_path) == {"a.checkpoint.safetensors", "a.metrics.jsonl"}


@pytest.mark.parametrize("pool", ["token", "token+avg"])
def test_pooling_a_class_token_that_is_not_there(splits, make_config, make_vit, tmp_path, pool):
    arguments = {"class_token": False, "global_pool": "avg"}
    save_file(make_vit(**arguments).state_dict(), tmp_path / "w.safetensors")
    config = make_config(
        backbone_args={**make_config().backbone_args, **arguments},
        weights=tmp_path / "w.safetensors",
        pool=pool,
    )
    with pytest.raises(VptkitError, match=rf"pool is {re.escape(pool)}, but .* no class token"):
        tune(splits, tmp_path / "a.safetensors", config)


def test_a_seed_that_is_too_large(splits, make_config, tmp_path):
    with pytest.raises(VptkitError, match=f"seed is {2**70}"):
        make_config(seed=2**70)
    result = tune(splits, tmp_path / "a.safetensors", make_config(seed=2**63 - 1, epochs=1))
    assert result.adapter.exists()
