"""torchrun for real: two processes on the CPU, with gloo, against one process alone."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from safetensors.numpy import load_file  # noqa: E402

from tests.support.children import run_child  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.data.dataset import DataSet  # noqa: E402
from vptkit.tune.idle_settings import without_idle  # noqa: E402
from vptkit.tune.training.distributed import joined, leads, share, sum_over_processes  # noqa: E402

if TYPE_CHECKING:
    from subprocess import CompletedProcess

RUNS: dict[str, dict[str, Any]] = {
    "vpt": {"method": "vpt", "dropout": 0.3, "batch_size": 9, "merge": 4},
    "bpt": {
        "method": "bpt",
        "form": "bilinear",
        "accumulate": 2,
        "batch_size": 9,
        "rescale": "all",
    },
    "ln": {
        "method": "ln",
        "cycles": 1,
        "head_epochs": 1,
        "ln_epochs": 2,
        "rescale": "both",
        "refit_epochs": 1,
        "lr_ln": 1e-2,
    },
    "lora": {"method": "lora", "lora_targets": "all", "accumulate": 2, "rescale": "all"},
    "crop": {
        "method": "vpt",
        "insert": "shallow",
        "merge": 3,
        "augment": "crop",
        "class_weights": "balanced",
    },
    "linear": {"method": "linear", "batch_size": 23},
}
# From the same start to the same bytes, but for rounding; the probe's own search is checked by "linear".
RUNS = {name: without_idle({"head_init": "zero", **settings}) for name, settings in RUNS.items()}

# Each process keeps its own parameters beside the adapter, which the first alone writes.
SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
import vptkit.tune.run.tune_run as run
import vptkit.tune.training.optimizer_step as step
import vptkit.tune.phases.phase_trainer as trainer
from vptkit.tune import config_from_mapping, tune
from vptkit.tune.phases.phased_training import Trained
torch.set_num_threads(1)
folder, runs = sys.argv[1:]
trained = run.train_phases

def train_phases(training, **options):
    tuned, state = trained(training, **options)
    state_dict = {k: v.clone() for k, v in tuned.state_dict().items()}
    save_file(state_dict, Path(folder, f"{name}.{os.environ['RANK']}.params"))
    return Trained(tuned, state)

def feature_evaluation(model, data, config):
    cached = cached_evaluation(model, data, config)
    def evaluation():
        found, wanted = cached(), trainer.top1_and_loss(model, data, 5)
        assert found[0] == wanted[0] and abs(found[1] - wanted[1]) < 1e-5, (found, wanted)
        return found
    return evaluation

cached_evaluation, trainer.feature_evaluation = trainer.feature_evaluation, feature_evaluation
run.train_phases = train_phases
for name, (data, settings) in json.loads(runs).items():
    if name == "broken":
        step.sum_over_processes = lambda tensors: None
    tune(Path(data), Path(folder, f"{name}.safetensors"), config_from_mapping(settings))
    assert Path(folder, f"{name}.safetensors").exists()
"""


def torchrun(*arguments: object) -> CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return run_child([*launcher, "--nproc-per-node", "2", *arguments], check=False, limit=240)


def settings_of(config: Any, **more: Any) -> dict[str, Any]:
    return {
        **without_idle(config.to_json()),
        "weights": str(config.weights),
        "device": "cpu",
        **more,
    }


@pytest.fixture(scope="module")
def without_val(make_folders, tmp_path_factory):
    """Images, four a class, and settings of a run that holds out parts of them."""
    settings = {"method": "vpt", "select": "last", "device": "cpu", "golden": 2}
    return make_folders(tmp_path_factory.mktemp("few") / "d", 4), settings


@pytest.fixture(scope="module")
def together(splits, make_config, without_val, tmp_path_factory):
    """The folder that two processes leave: all runs after each other, as torch takes its time."""
    folder = tmp_path_factory.mktemp("together")
    runs = {
        name: settings_of(
            make_config(**settings),
            **{key: settings[key] for key in ("accumulate",) if key in settings},
        )
        for name, settings in RUNS.items()
    }
    planned = {name: (str(splits), settings) for name, settings in runs.items()}
    images, settings = without_val
    planned["few"] = str(images), settings_of(make_config(**settings))
    planned["broken"] = str(splits), runs["vpt"]  # the last: what it breaks stays so
    (folder / "script.py").write_text(SCRIPT)
    done = torchrun(folder / "script.py", folder, json.dumps(planned))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.long
def test_two_processes_train_as_one(splits, make_config, together, tmp_path):
    (tmp_path / "alone").mkdir()
    for name, settings in RUNS.items():
        config = make_config(**settings, device="cpu")
        alone = tune(splits, tmp_path / "alone" / f"{name}.safetensors", config)
        one, other = (load_file(together / f"{name}.{rank}.params") for rank in (0, 1))
        assert all(np.array_equal(one[key], other[key]) for key in one), name
        both, single = read_adapter(together / f"{name}.safetensors"), read_adapter(alone.adapter)
        assert both.train["computed"]["processes"] == 2
        assert both.train["val_top1"] == single.train["val_top1"], name
        assert both.train["best_epoch"] == single.train["best_epoch"], name
        losses = [a.train["confidence"]["val_loss"] for a in (both, single)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5), name
        if both.train["layer_norms"] is not None:
            curves = [a.train["layer_norms"]["rescale"]["curve"] for a in (both, single)]
            for one, other in zip(*curves, strict=True):
                assert one == {**other, "val_loss": pytest.approx(other["val_loss"], rel=1e-5)}
        if both.train["line"] is not None:
            assert both.train["line"]["alpha"] == single.train["line"]["alpha"]
            for one, other in zip(*(a.train["line"]["curve"] for a in (both, single)), strict=True):
                assert one == {key: pytest.approx(value, rel=1e-4) for key, value in other.items()}
        for key, value in single.tensors.items():
            # a search ends within its tolerance; AdamW divides rounding by gradients near zero
            near = {"linear": 1e-2, "lora": 1e-5}.get(name, 1e-6)
            bound = near * max(1.0, float(np.abs(value).max()))
            assert np.abs(both.tensors[key].astype(float) - value).max() <= bound, (name, key)
        records = (together / f"{name}.metrics.jsonl").read_text().splitlines()
        for line, record in zip(records, alone.metrics.read_text().splitlines(), strict=True):
            one, other = json.loads(line), json.loads(record)
            for key in {"train_loss", "train_top1", "val_loss", "val_top1"} & set(other):
                near = 1e-2 if name == "linear" else 1e-5
                assert one[key] == pytest.approx(other[key], rel=near), (name, key)
        assert not (together / f"{name}.checkpoint.safetensors").exists()
    # Processes that do not exchange their gradients drift apart.
    one, other = (load_file(together / f"broken.{rank}.params") for rank in (0, 1))
    assert any(np.abs(one[key] - other[key]).max() > 1e-3 for key in one)


@pytest.mark.long
def test_two_processes_hold_out_the_same_parts(without_val, make_config, together, tmp_path):
    """Without val: the same epoch is chosen, and what is learned is the same but for rounding."""
    images, settings = without_val
    config = make_config(**settings)
    alone = read_adapter(tune(images, tmp_path / "alone.safetensors", config).adapter)
    both = read_adapter(together / "few.safetensors")
    for key in ("cross_validation", "best_epoch", "val_top1"):
        assert both.train[key] == alone.train[key], key
    assert both.train["cross_validation"]["folds"] == 4
    for key, value in alone.tensors.items():
        bound = 1e-2 * max(1.0, float(np.abs(value).max()))  # the probe's search ends within that
        assert np.abs(both.tensors[key].astype(float) - value).max() <= bound, key
    one, other = (load_file(together / f"few.{rank}.params") for rank in (0, 1))
    assert all(np.array_equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_the_command_speaks_once(splits, weights, tmp_path):
    """`torchrun -m vptkit tune`: one document on standard output."""
    output = tmp_path / "a.safetensors"
    arguments = ["-m", "vptkit", "tune", splits, "-o", output, "--weights", weights, "--json"]
    arguments += ["--backbone", "vit_tiny_patch16_224", "--epochs", 1, "--device", "cpu"]
    arguments += ["--method", "ln"]  # auto is for one process
    (tmp_path / "c.toml").write_text(
        "[backbone_args]\nimg_size = 32\npatch_size = 8\nembed_dim = 32\ndepth = 2\nnum_heads = 2\n"
    )
    arguments += ["--config", tmp_path / "c.toml", "--batch-size", 8, "--golden", 2]
    done = torchrun(*arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["adapter"] == str(output)


# ---- one process --------------------------------------------------------------------------------


def test_without_torchrun_nothing_is_joined():
    with joined(torch.device("cpu")):
        assert share() == (0, 1)
        assert leads()
        assert not torch.distributed.is_initialized()
        value = torch.ones(3)
        sum_over_processes([value])
        assert value.tolist() == [1, 1, 1]


def test_the_first_process_leads(monkeypatch):
    """Also where the processes have not met yet."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        assert leads() == (rank == 0)


def test_shares_are_the_batches(splits, make_vit):
    """Together the processes see every batch, once, in its order."""
    from vptkit.tune.backbone.timm_backbone import preprocess_of
    from vptkit.tune.data.splits import load_splits

    data = DataSet(load_splits(splits, 0, 0.15, 0.15)[1]["train"], preprocess_of(make_vit()))
    settings = {"seed": 3, "epoch": 1, "augment": "crop", "crop_scale": 0.5}
    whole = list(data.training_batches(9, **settings))
    shares = [list(data.training_batches(9, **settings, share=(k, 2))) for k in (0, 1)]
    assert [len(images) for images, _ in whole] == [9, 9, 6]
    for (images, targets), *parts in zip(whole, *shares, strict=True):
        for k, (own, wanted) in enumerate(parts):
            assert np.array_equal(own, images[k::2])
            assert np.array_equal(wanted, targets[k::2])
    every = np.concatenate([images for images, _ in data.evaluation_batches(7)])
    for k in (0, 1, 2):
        own = np.concatenate([x for x, _ in data.evaluation_batches(7, share=(k, 3))])
        assert np.array_equal(own, every[k::3])
    assert list(data.evaluation_batches(7, share=(24, 25))) == []
