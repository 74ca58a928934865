"""The loop around the steps: parts, early stopping, class weights, resuming in half precision."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from tests.support.tuning_runs import Count, Stop  # noqa: E402
from vptkit.errors import VptkitError  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import spec_from_model  # noqa: E402
from vptkit.tune.backbone.timm_backbone import preprocess_of  # noqa: E402
from vptkit.tune.data.dataset import DataSet  # noqa: E402
from vptkit.tune.data.splits import load_splits  # noqa: E402
from vptkit.tune.methods.tuned_model import Tuned  # noqa: E402
from vptkit.tune.training.device import place  # noqa: E402
from vptkit.tune.training.frozen_features import feature_evaluation  # noqa: E402
from vptkit.tune.training.loop import (  # noqa: E402
    answers,
    image_batches,
    rate_at,
    split_logits,
    top1_and_loss,
)
from vptkit.tune.training.optimizer_step import Stepper  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


class Texts(list):
    """A progress that keeps what it is told."""

    total: int | None = None

    def update(self, advance: int = 1, text: str = "") -> None:
        self.append(text)


def distance(a: Path, b: Path) -> float:
    """Largest difference between the tensors of two adapters."""
    one, other = read_adapter(a).tensors, read_adapter(b).tensors
    assert set(one) == set(other)
    return max(float(np.abs(one[k].astype(float) - other[k]).max()) for k in one)


METHODS = [
    {"method": "vpt", "dropout": 0.3},
    {"method": "bpt", "form": "bilinear"},
]


@pytest.mark.parametrize("settings", METHODS, ids=lambda s: s["method"])
def test_accumulation_is_the_same_run(splits, make_config, tmp_path, settings):
    settings = {**settings, "batch_size": 9, "name": "x"}
    whole = tune(splits, tmp_path / "a.safetensors", make_config(**settings))
    parts = tune(splits, tmp_path / "b.safetensors", make_config(**settings, accumulate=4))
    assert distance(whole.adapter, parts.adapter) < 1e-4
    assert read_adapter(parts.adapter).train["computed"]["accumulate"] == 4
    assert parts.val_top1 == whole.val_top1


def test_nothing_computes_more_images_at_once_than_memory_was_planned_for(
    splits, make_config, tmp_path, monkeypatch
):
    """Features and answers need no backward pass, and so take no more than twice a step's part."""
    real, seen = Tuned._computed, {True: set(), False: set()}

    def noting(self: Tuned, pixels: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen[torch.is_grad_enabled()].add(len(pixels))
        return real(self, pixels, *rest)

    monkeypatch.setattr(Tuned, "_computed", noting)
    config = make_config(method="ln", epochs=1, accumulate=4, rescale="all", golden=2)
    tune(splits, tmp_path / "a.safetensors", config)
    assert max(seen[True]) == 2  # of batches of 8
    assert max(seen[False]) == 4


def test_accumulation_that_forgets_a_part_is_seen(splits, make_config, tmp_path, monkeypatch):
    settings = {**METHODS[0], "batch_size": 9}
    whole = tune(splits, tmp_path / "a.safetensors", make_config(**settings))
    real = Stepper._backward
    monkeypatch.setattr(Stepper, "_backward", lambda self, x, y, n: real(self, x[:1], y[:1], n))
    parts = tune(splits, tmp_path / "b.safetensors", make_config(**settings, accumulate=4))
    assert distance(whole.adapter, parts.adapter) > 1e-3


def test_how_it_is_computed_may_change_when_a_run_goes_on(splits, make_config, tmp_path):
    output = tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        tune(splits, output, make_config(method="vpt"), progress=Stop(30))
    config = make_config(method="vpt", accumulate=2, device="cpu")
    assert tune(splits, output, config, resume=True).adapter == output


def test_the_device_is_told(splits, make_config, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    texts = Texts()
    result = tune(splits, tmp_path / "a.safetensors", make_config(epochs=1), progress=texts)
    assert texts[0] == "on cpu"
    assert result.device == result.to_json()["device"] == "cpu"
    assert read_adapter(result.adapter).train["computed"] == {
        "device": "cpu",
        "processes": 1,
        "accumulate": 1,
        "compile": False,
    }


# ---- validation ---------------------------------------------------------------------------------


@pytest.fixture
def make_measured(splits, make_vit, make_config):
    """A function: (model in training mode, its validation split, configuration)."""

    def make(**settings: Any) -> tuple[Tuned, DataSet, Any]:
        config = make_config(**settings, batch_size=6)  # of 15 images
        model = make_vit()
        data = DataSet(load_splits(splits, 0, 0.15, 0.15)[1]["val"], preprocess_of(model))
        tuned = Tuned(model, spec_from_model(model), config, 3, None)
        place(tuned, torch.device("cpu"), config)
        return tuned.train(), data, config

    return make


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "linear"},
        {"method": "ln", "pool": "avg"},
        {"method": "ln+vpt", "dropout": 0.5},
        {"method": "ln+bpt", "precision": "bf16"},
        {"method": "lora", "precision": "bf16"},
    ],
    ids=lambda s: s["method"],
)
def test_cached_features_say_what_top1_and_loss_says(make_measured, settings):
    """Of the head as it is then; and of norms as they were when the features were computed."""
    tuned, data, config = make_measured(**settings)
    cached = feature_evaluation(tuned, data, config)
    generator = torch.Generator().manual_seed(4)
    found = set()
    for _ in range(4):  # as the head learns
        tuned.train()
        with torch.no_grad():
            tuned.head.weight.normal_(generator=generator)
        top1, loss = cached()
        assert (top1, loss) == (
            top1_and_loss(tuned, data, 5)[0],
            pytest.approx(top1_and_loss(tuned, data, 5)[1], rel=1e-5),
        )
        found.add((top1, loss))
    assert len(found) == 4
    if tuned.layer_norms is not None:
        tuned.layer_norms.put([value + 0.3 for value in tuned.layer_norms.learned()])
        assert cached()[1] != pytest.approx(top1_and_loss(tuned, data, 5)[1], rel=1e-3)


def test_an_answer_that_is_no_number_is_wrong(make_measured):
    """The largest of three NaNs would be the first class."""
    tuned, data, _ = make_measured(method="linear")
    with torch.no_grad():
        tuned.head.weight.fill_(float("nan"))
    right, loss = answers(tuned, data, 5)
    assert (right.shape, right.sum()) == ((15,), 0)
    assert np.isnan(loss)


def test_the_logits_of_a_split_are_in_its_order(splits, make_vit, make_config):
    model, config = make_vit(), make_config(method="vpt", dropout=0.9)
    data = DataSet(load_splits(splits, 0, 0.15, 0.15)[1]["val"], preprocess_of(model))
    tuned = Tuned(model, spec_from_model(model), config, 3, None)
    logits = split_logits(tuned, data, 5)
    assert (logits.shape, logits.dtype) == ((15, 3), "float32")
    right, loss = answers(tuned, data, 5)
    assert np.array_equal(logits.argmax(axis=1) == data.split.targets, right)
    wanted = torch.nn.functional.cross_entropy(*map(torch.from_numpy, (logits, data.split.targets)))
    assert loss == pytest.approx(float(wanted), rel=1e-5)
    alone = DataSet(data.split, data.preprocess)
    np.testing.assert_allclose(split_logits(tuned, alone, 15), logits, atol=1e-5)


# ---- early stopping -----------------------------------------------------------------------------


def scripted(monkeypatch, scores: list[float]) -> list[float]:
    """Validation gives these accuracies in turn; returns the rates of the last steps of epochs."""
    left, rates = list(scores), []
    monkeypatch.setattr(
        "vptkit.tune.phases.phase_trainer.top1_and_loss", lambda *_: (left.pop(0), 1.0)
    )
    real = Stepper.step

    def step(self: Stepper, batch: Any, epoch: int) -> tuple[float, int]:
        rates.append(self._optimizer.param_groups[0]["lr"])
        return real(self, batch, epoch)

    monkeypatch.setattr(Stepper, "step", step)
    return rates


@pytest.mark.parametrize(
    ("scores", "patience", "epochs", "best"),
    [
        ([0.5, 0.6, 0.6, 0.5, 0.9, 0.9], 2, 4, 2),
        ([0.5, 0.6, 0.6, 0.5, 0.9, 0.9], 3, 6, 5),
        ([0.5, 0.4], 1, 2, 1),
        ([0.5, 0.6, 0.7, 0.7, 0.7, 0.7], None, 6, 3),
    ],
)
def test_patience(splits, make_config, tmp_path, monkeypatch, scores, patience, epochs, best):
    rates = scripted(monkeypatch, [*scores, 0.0])
    config = make_config(method="vpt", epochs=6, patience=patience, head_init="zero", select="top1")
    monkeypatch.setattr("vptkit.tune.run.choose_on_val.top1_and_loss", lambda *_: (0.0, 1.0))
    bar = Count()
    result = tune(splits, tmp_path / "a.safetensors", config, progress=bar)
    assert bar.done == bar.total == 24 * epochs
    assert len(result.metrics.read_text().splitlines()) == epochs
    assert result.best_epoch == best
    # 24 images in batches of 8; the schedule is that of all six epochs
    expected = [5e-3 * rate_at(step, 18, 0.1) for step in range(3 * epochs)]
    assert rates == pytest.approx(expected)


def test_the_bar_counts_the_whole_run(splits, make_config, tmp_path, monkeypatch):
    """Two cycles of which the second brings nothing: a third is not begun. Dropped images."""
    scripted(monkeypatch, [0.6, 0.5, 0.5, 0.5, 0.0])
    monkeypatch.setattr(
        "vptkit.tune.phases.phase_trainer.feature_evaluation",
        lambda *_: iter([(0.5, 1.0)] * 3).__next__,
    )
    monkeypatch.setattr("vptkit.tune.run.choose_on_val.top1_and_loss", lambda *_: (0.0, 1.0))
    config = make_config(
        method="ln",
        cycles=3,
        head_epochs=1,
        ln_epochs=1,
        batch_size=7,
        head_init="zero",
        select="top1",
    )
    bar = Count()
    result = tune(splits, tmp_path / "a.safetensors", config, progress=bar)
    assert len(result.metrics.read_text().splitlines()) == 4
    assert bar.done == bar.total == 2 * (24 + 21)  # features of all; 3 images make no batch
    told = [text.split()[1] for text in bar.texts if text.startswith("epoch ")]
    assert list(dict.fromkeys(told)) == ["1/6", "2/6", "3/6", "4/6"]


def test_a_run_that_lost_patience_is_resumed_to_the_same_bytes(splits, make_config, tmp_path):
    config = make_config(method="vpt", lr=1e-9, lr_head=1e-9, epochs=9, patience=2, name="x")
    whole = tune(splits, tmp_path / "a.safetensors", config)
    records = whole.metrics.read_text().splitlines()
    assert whole.best_epoch + 3 == len(records) or len(records) == 10
    output = tmp_path / "b.safetensors"
    for _ in range(len(records) - 2):  # an epoch a run
        with pytest.raises(KeyboardInterrupt):
            tune(splits, output, config, resume=True, progress=Stop(25))
    resumed = tune(splits, output, config, resume=True)
    assert resumed.adapter.read_bytes() == whole.adapter.read_bytes()


# ---- classes ------------------------------------------------------------------------------------


def test_balanced_classes(make_folders, make_config, tmp_path):
    """A set of one large and two small classes: the weights change what is learned."""
    data = make_folders(tmp_path / "d" / "train", 4)
    for i in range(4, 20):
        (data / "red" / f"{i}.png").write_bytes((data / "red" / f"{i % 4}.png").read_bytes())
    make_folders(tmp_path / "d" / "val", 3, seed=1)
    found = {}
    for weights in ("none", "balanced"):
        config = make_config(method="linear", class_weights=weights)
        found[weights] = tune(tmp_path / "d", tmp_path / f"{weights}.safetensors", config)
    bias = {k: read_adapter(v.adapter).tensors["head.bias"] for k, v in found.items()}
    assert bias["none"][2] > bias["balanced"][2]  # red is no longer the safe answer
    record = json.loads(found["balanced"].metrics.read_text().splitlines()[-1])
    adapter = read_adapter(found["balanced"].adapter)
    assert adapter.train["config"]["class_weights"] == "balanced"
    assert record["val_loss"] > 0


def test_balanced_classes_of_an_even_set_change_nothing(splits, make_config, tmp_path):
    found = [
        tune(splits, tmp_path / f"{w}.safetensors", make_config(method="vpt", class_weights=w))
        for w in ("none", "balanced")
    ]
    assert distance(*(result.adapter for result in found)) == 0


# ---- precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_resumes_to_the_same_bytes(splits, make_config, tmp_path, precision):
    zero = {"method": "vpt", "epochs": 3, "name": "x", "head_init": "zero"}
    config = make_config(**zero, precision=precision)
    whole = tune(splits, tmp_path / "a.safetensors", config)
    full = tune(splits, tmp_path / "f.safetensors", make_config(**zero))
    assert 0 < distance(whole.adapter, full.adapter) < 0.2
    output = tmp_path / "b.safetensors"
    with pytest.raises(KeyboardInterrupt):
        tune(splits, output, config, progress=Stop(30))
    resumed = tune(splits, output, config, resume=True)
    assert resumed.adapter.read_bytes() == whole.adapter.read_bytes()


def test_the_scaler_of_fp16_goes_on_where_it_was(splits, make_config, tmp_path, monkeypatch):
    """An overflow in the first epoch halves the factor for good; a resumed run must know."""
    config = make_config(method="vpt", precision="fp16", epochs=3)
    scales: list[float] = []
    real = Stepper.step

    def step(self: Stepper, batch: Any, epoch: int) -> tuple[float, int]:
        if epoch == 0 and not scales:
            self.scaler.load_state_dict({**self.scaler.state_dict(), "scale": 2.0**9})
        scales.append(self.scaler.get_scale())
        return real(self, batch, epoch)

    monkeypatch.setattr(Stepper, "step", step)
    with pytest.raises(KeyboardInterrupt):
        tune(splits, tmp_path / "a.safetensors", config, progress=Stop(30))
    tune(splits, tmp_path / "a.safetensors", config, resume=True)
    assert set(scales) == {512.0}


def test_precision_is_part_of_a_run(splits, make_config, tmp_path):
    output = tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        tune(splits, output, make_config(method="vpt"), progress=Stop(30))
    with pytest.raises(VptkitError, match=r"config\.precision was 'fp32', is 'bf16'"):
        tune(splits, output, make_config(method="vpt", precision="bf16"), resume=True)


def test_golden_answers_are_float32_whatever_the_precision(splits, weights, make_config, tmp_path):
    from vptkit.tune.backbone.reference import reference_logits

    config = make_config(method="bpt", form="bilinear", precision="bf16")
    result = tune(splits, tmp_path / "a.safetensors", config)
    images, logits = read_adapter(result.adapter).golden()
    again = reference_logits(result.adapter, weights, images)
    np.testing.assert_allclose(again, logits, rtol=1e-5, atol=1e-5 * np.abs(logits).max())


# ---- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "int8"}, "precision is 'int8', expected one of fp32, bf16, fp16"),
        ({"class_weights": "effective"}, "class_weights is 'effective', expected one of none, bal"),
        ({"accumulate": 0}, "accumulate is 0, expected at least 1"),
        ({"patience": 0}, "patience is 0, expected at least 1"),
        ({"compile": "yes"}, "compile is 'yes', expected bool"),
        ({"compile": 1}, "compile is 1, expected bool"),
        ({"accumulate": True}, "accumulate is True, expected int"),
        ({"recompute": 1}, "recompute is 1, expected bool"),
        (
            {"recompute": True, "method": "linear"},
            "recompute is True, which does nothing with method",
        ),
        ({"device": 0}, "device is 0, expected str"),
    ],
)
def test_settings_are_checked(make_config, settings, message):
    with pytest.raises(VptkitError, match=message):
        make_config(**settings)


def test_what_only_rounds_is_no_part_of_the_identity(make_config):
    document = make_config(accumulate=3, device="cpu", compile=True, recompute=True).to_json()
    assert document == make_config().to_json()
    assert document["precision"] == "fp32"


@pytest.mark.parametrize(
    ("size", "count", "fails"), [(8, 24, False), (7, 24, False), (6, 24, True)]
)
def test_too_many_processes(make_config, monkeypatch, size, count, fails):
    """Four processes: the smallest batch that is kept must have an image for each."""
    monkeypatch.setattr("vptkit.tune.training.loop.share", lambda: (0, 4))
    config = make_config(batch_size=size)
    if not fails:
        image_batches(range(count), config)
        return
    with pytest.raises(VptkitError, match=r"4 processes.*as few as 3 of the 24.*--batch-size 8"):
        image_batches(range(count), config)
    with pytest.raises(VptkitError, match=r"3 of the 3 images: start fewer processes"):
        image_batches(range(3), config)  # no batch is larger than the set
