"""Few images in all: chosen on what is held out in turns, trained on everything."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from tests.support.tuning_runs import CYCLIC, Count, Stop, names, records  # noqa: E402
from vptkit.errors import DataError, VptkitError  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.formats.tensor_file import read_tensor_file, write_tensors  # noqa: E402
from vptkit.images.image_file import open_image  # noqa: E402
from vptkit.scores.probabilities import top1_and_log_loss  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.phases import cross_validation  # noqa: E402
from vptkit.tune.phases.new_model import new_model  # noqa: E402
from vptkit.tune.phases.part_training import train_without_part  # noqa: E402
from vptkit.tune.training.train_state import TrainState  # noqa: E402


class Heard(Count):
    """A progress that stops at some words."""

    def __init__(self, words: str = "") -> None:
        super().__init__()
        self._words = words

    def update(self, advance: int = 1, text: str = "") -> None:
        super().update(advance, text)
        if self._words and self._words in text:
            raise KeyboardInterrupt


class Began(Count):
    """A progress that stops when words begin so: those of the training on all images."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words

    def update(self, advance: int = 1, text: str = "") -> None:
        super().update(advance, text)
        if text.startswith(self._words):
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize(("count", "folds"), [(2, 2), (5, 5), (10, 5)])
@pytest.mark.parametrize("method", ["linear", "ln", "vpt", "lora"])
def test_so_many_images_a_class_in_all(make_folders, make_config, tmp_path, count, folds, method):
    bar, config = Heard(), make_config(method=method)
    output = tmp_path / "a.safetensors"
    result = tune(make_folders(tmp_path / "d", count), output, config, progress=bar)
    assert result.cross_validation == {"folds": folds, "joined": 0}
    assert result.to_text()["val_top1"] == f"{result.val_top1:g} ({folds}-fold)"
    train = read_adapter(output).train
    assert train["cross_validation"] == {"folds": folds, "joined": 0}
    assert train["images"] == {"train": {"blue": count, "green": count, "red": count}}
    told = records(result)
    linear = method == "linear"
    assert [record["epoch"] for record in told] == list(range(result.best_epoch + 1))
    best = min(told, key=lambda record: record["val_loss"])
    assert (best["epoch"], best["val_top1"]) == (result.best_epoch, result.val_top1)
    assert set(told[0]) == {"epoch", "val_top1", "val_loss", "probe"}
    assert "val_top1" in told[0]["probe"]
    assert len(read_adapter(output).golden()[0]) == 3
    assert (result.confidence["temperature"] == 1) == (count == 2)  # of six images
    assert result.page.exists()
    assert bar.done == bar.total
    shown = 0 if linear else 3 * count * ((folds - 1) * 2 + result.best_epoch)
    assert abs(bar.done - shown) <= 2 * folds * 8  # small last batches are dropped
    assert names(tmp_path) >= {"a.safetensors", "a.metrics.jsonl", "a.html"}
    assert not (tmp_path / "a.checkpoint.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["linear", "ln"])
def test_one_image_a_class(make_folders, make_config, tmp_path, method):
    """Nothing can be held out: the last epoch, T = 1, and nobody knows how good it is."""
    folder = make_folders(tmp_path / "d", 1)
    result = tune(folder, tmp_path / "a.safetensors", make_config(method=method, name="x"))
    assert result.cross_validation == {"folds": 0, "joined": 0}
    assert result.val_top1 is result.confidence is read_adapter(result.adapter).train["val_top1"]
    assert result.val_top1 is None
    assert result.best_epoch == (0 if method == "linear" else 2)
    assert {record["val_loss"] for record in records(result)} == {None}
    assert result.page.exists()
    text = result.to_text()
    assert (text["val_top1"], text["cross_validation"]) == ("-", "none: one image a class")
    if method == "ln":
        with pytest.raises(KeyboardInterrupt):
            tune(folder, tmp_path / "b.safetensors", make_config(method=method, name="x"),
                 progress=Stop(4))  # fmt: skip
        again = tune(
            folder, tmp_path / "b.safetensors", make_config(method=method, name="x"), resume=True
        )
        assert again.adapter.read_bytes() == result.adapter.read_bytes()


@pytest.mark.slow
def test_a_class_of_one_image_among_others(make_folders, make_config, tmp_path):
    folder = make_folders(tmp_path / "d", 3)
    for i in (1, 2):
        (folder / "red" / f"{i}.png").unlink()
    result = tune(folder, tmp_path / "a.safetensors", make_config(method="ln"))
    assert result.cross_validation["folds"] == 3
    assert result.val_top1 is not None


@pytest.mark.slow
def test_a_named_val_that_is_too_small(make_folders, make_config, tmp_path):
    for seed, name in enumerate(("train", "val")):
        make_folders(tmp_path / "d" / name, 2, seed)
    result = tune(tmp_path / "d", tmp_path / "a.safetensors", make_config(method="linear"))
    assert result.cross_validation == {"folds": 4, "joined": 6}
    assert "4-fold; the 6 images of val, too few" in result.to_text()["cross_validation"]
    assert read_adapter(result.adapter).train["images"]["train"]["red"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"method": "vpt"}, {"form": "fwhiten"}, CYCLIC])
def test_no_image_is_in_the_training_that_it_judges(
    make_folders, make_config, tmp_path, monkeypatch, settings
):
    """Nor in the whitening of that training; and each judges once."""
    trained, judges, opened = [], [], []

    def spied(training, probe):
        sets = {name: data.split.images for name, data in training.sets.items()}
        opened.clear()
        new_model(training, TrainState({}), None)
        assert set(opened) <= set(sets["train"])
        assert bool(opened) == ("form" in settings)  # whitening looks at images
        logits = train_without_part(training, probe)
        trained.append(set(sets["train"]))
        judges.append(list(sets["val"]))
        assert {len(some) for some in logits} == {len(sets["val"])}
        return logits

    def opening(image, **options):
        opened.append(image)
        return open_image(image, **options)

    monkeypatch.setattr("vptkit.tune.data.dataset.open_image", opening)
    monkeypatch.setattr(cross_validation, "train_without_part", spied)
    result = tune(
        make_folders(tmp_path / "d", 3), tmp_path / "a.safetensors", make_config(**settings)
    )
    assert result.cross_validation["folds"] == len(trained) == 3
    everything = set((tmp_path / "d").rglob("*.png"))
    for known, judging in zip(trained, judges, strict=True):
        assert known == everything - set(judging)
    assert sorted(image for judging in judges for image in judging) == sorted(everything)


@pytest.mark.slow
def test_the_records_are_of_all_that_was_held_out(make_folders, make_config, tmp_path, monkeypatch):
    """Each image counts once, by the model that had not seen it; the temperature is of these."""
    noted = []

    def spied(training, probe):
        logits = train_without_part(training, probe)
        noted.append((logits, training.sets["val"].split.targets))
        return logits

    monkeypatch.setattr(cross_validation, "train_without_part", spied)
    config = make_config(method="ln", lr_ln=0.05)
    result = tune(make_folders(tmp_path / "d", 6), tmp_path / "a.safetensors", config)
    targets = np.concatenate([targets for _, targets in noted])
    for record in records(result):
        logits = np.concatenate([logits[record["epoch"]] for logits, _ in noted])
        top1, loss = top1_and_log_loss(logits, targets)
        assert record["val_top1"] == pytest.approx(top1)
        assert record["val_loss"] == pytest.approx(loss, rel=1e-6)
        if record["epoch"] == result.best_epoch:
            assert result.confidence["val_loss"][0] == pytest.approx(loss, rel=1e-6)


# ---- which epoch ---------------------------------------------------------------------------------


def chosen_epoch(make_config, losses, **settings):
    """Of records with these losses, from epoch 0 on."""
    settings = {"method": "ln", "epochs": len(losses) - 1, **settings}
    if "cycles" in settings:  # which count their own
        del settings["epochs"]
    told = [{"epoch": i, "val_top1": 0.5, "val_loss": loss} for i, loss in enumerate(losses)]
    return cross_validation._best_epoch(told, make_config(**settings))


@pytest.mark.parametrize(
    ("losses", "settings", "best"),
    [
        ([0.9, 0.7, 0.8], {}, 1),
        ([0.6, 0.7, 0.8], {}, 0),  # the probe
        ([0.6, 0.7, 0.8], {"select": "last"}, 2),
        ([0.6, 0.7, 0.6], {"select": "top1"}, 0),  # of equals the earlier
        ([0.9, 0.8, 0.85, 0.86, 0.1], {"patience": 2}, 1),
        ([0.9, 0.8, 0.85, 0.86, 0.1], {"patience": 3}, 4),
        ([0.9, 0.8, 0.85, 0.9, 0.9, 0.9, 0.9, 0.9, 0.1], CYCLIC, 8),
        ([0.1, 0.8, 0.85, 0.9, 0.9, 0.9, 0.9, 0.9, 0.01], CYCLIC, 0),  # the first cycle did nothing
    ],
)
def test_the_epoch_is_the_one_that_val_would_choose(make_config, losses, settings, best):
    assert chosen_epoch(make_config, losses, **settings) == best


@pytest.mark.slow
def test_the_last_epoch_if_it_is_asked_for(make_folders, make_config, tmp_path):
    config = make_config(method="vpt", select="last", head_init="zero")
    result = tune(make_folders(tmp_path / "d", 2), tmp_path / "a.safetensors", config)
    assert result.best_epoch == 2
    assert [record["epoch"] for record in records(result)] == [1, 2]


# ---- killed --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_before_the_probe_is_found_nothing_is_left(make_folders, make_config, tmp_path):
    folder = make_folders(tmp_path / "d", 3)
    with pytest.raises(KeyboardInterrupt):
        tune(folder, tmp_path / "a.safetensors", make_config(method="ln"), progress=Heard("probe"))
    assert names(tmp_path) == {"d"}


@pytest.mark.long
@pytest.mark.parametrize(
    "settings", [{"method": "ln"}, {"form": "fwhiten"}, {"method": "vpt", "head_init": "zero"}]
)
def test_killed_wherever_it_goes_on_to_the_same_bytes(
    make_folders, make_config, tmp_path, monkeypatch, settings
):
    """What is done of the parts is not done again."""
    folder = make_folders(tmp_path / "d", 6)
    config = make_config(name="x", select="last", **settings)
    whole = tune(folder, tmp_path / "whole.safetensors", config)
    output, held = tmp_path / "a.safetensors", []

    def noted(training, probe):
        held.append(training.sets["val"].split.images)
        return train_without_part(training, probe)

    monkeypatch.setattr(cross_validation, "train_without_part", noted)
    for words in ("1 of 5 parts held out: epoch 2", "3 of 5 parts held out: epoch 1", "of all"):
        stop = Heard(words) if words != "of all" else Began("epoch 2/2")
        with pytest.raises(KeyboardInterrupt):
            tune(folder, output, config, resume=True, progress=stop)
    assert {"a.checkpoint.safetensors", "a.metrics.jsonl"} <= names(tmp_path)
    assert len(held) == 1 + 3 + 3  # the first and the third part were begun twice
    assert len(set(held)) == 5
    resumed = tune(folder, output, config, resume=True)
    assert len(held) == 7
    assert resumed.adapter.read_bytes() == whole.adapter.read_bytes()
    assert records(resumed) == records(whole)
    finished = tune(folder, output, config, resume=True)
    assert (finished.val_top1, finished.cross_validation) == (
        whole.val_top1,
        {"folds": 5, "joined": 0},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        {"folds": "2"},
        {"folds": -1},
        {"folds": 3},
        {"folds": None},
        {"start": {}},
        {
            "epoch": 1,
            "history": [
                {
                    "epoch": 1,
                    "train_loss": 1.0,
                    "train_top1": 1.0,
                    "val_top1": None,
                    "val_loss": None,
                }
            ],
        },
        "the first part",
        "fewer images",
        "no numbers",
    ],
    ids=str,
)
def test_damaged_parts_are_refused(make_folders, make_config, tmp_path, damage):
    folder, config = make_folders(tmp_path / "d", 2), make_config(method="ln", select="last")
    output = tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        tune(folder, output, config, progress=Began("epoch 1"))
    checkpoint = tmp_path / "a.checkpoint.safetensors"
    metadata, tensors = read_tensor_file(checkpoint, DataError)
    document = json.loads(metadata["vptkit"])
    if damage == "the first part":
        del tensors["held_out.0"]
    elif damage == "fewer images":
        tensors["held_out.1"] = tensors["held_out.1"][:, 1:].copy()
    elif damage == "no numbers":
        tensors["held_out.1"] = tensors["held_out.1"] * np.float32("nan")
    else:
        document |= damage
    write_tensors(checkpoint, tensors, ("vptkit", json.dumps(document)))
    with pytest.raises(DataError, match=r"damaged checkpoint.*(folds|held.out|no best|epoch 1)"):
        tune(folder, output, config, resume=True)


# ---- what needs a val ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"rescale": "gamma"}, {"refit_epochs": 1}])
def test_what_only_val_can_choose_is_refused_first(make_folders, make_config, tmp_path, settings):
    folder, (key, value) = make_folders(tmp_path / "d", 2), *settings.items()
    config = make_config(method="ln", **settings)
    with pytest.raises(VptkitError, match=rf"{key} is {value}, but there is no val split of 5"):
        tune(folder, tmp_path / "a.safetensors", config, progress=Stop(1))
    assert tune(
        folder, tmp_path / "a.safetensors", replace(config, rescale="none", refit_epochs=0)
    ).adapter.exists()


@pytest.mark.slow
def test_without_val_the_last_epoch_is_taken_unless_another_rule_is_asked_for(
    make_folders, make_config, tmp_path
):
    """A best epoch in the middle of the schedule would be another model than those that were judged."""
    folder = make_folders(tmp_path / "d", 3)
    config = make_config(method="ln", epochs=3, select="soup", name="x")
    result = tune(folder, tmp_path / "a.safetensors", config)
    assert (result.best_epoch, result.soup) == (3, None)
    asked = tune(folder, tmp_path / "b.safetensors", replace(config, select="last"))
    one, other = (read_adapter(found.adapter).tensors for found in (result, asked))
    assert all(np.array_equal(one[name], other[name]) for name in one)
