"""Few images of each class: which ones, how many, and a training for each number."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from safetensors.torch import save_file  # noqa: E402

from vptkit.errors import DataError, OutputError, VptkitError  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.data.splits import class_counts, data_digest, load_splits  # noqa: E402
from vptkit.tune.run import tune_run as run_module  # noqa: E402
from vptkit.tune.run.few_shot_series import shots_of, tune_shots  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


def shown(data: Path, shots: int | None, seed: int = 0) -> dict[str, set[str]]:
    """Split → its files."""
    _, found = load_splits(data, seed, 0.15, 0.15, shots=shots)
    return {name: set(map(str, split.images)) for name, split in found.items()}


# ---- which images -------------------------------------------------------------------------------


def test_so_many_of_each_class_and_the_other_splits_whole(splits):
    labels, found = load_splits(splits, 0, 0.15, 0.15, shots=3)
    assert class_counts(labels, found) == {
        "train": dict.fromkeys(labels, 3),
        "val": dict.fromkeys(labels, 5),
        "test": dict.fromkeys(labels, 4),
    }
    assert list(found["train"].images) == sorted(found["train"].images)
    for image, target in zip(found["train"].images, found["train"].targets, strict=True):
        assert image.parent.name == labels[target]


def test_more_shots_are_a_superset(splits):
    chosen = [shown(splits, shots)["train"] for shots in (1, 2, 5, 8)]
    for fewer, more in itertools.pairwise(chosen):
        assert fewer < more
    assert chosen[-1] == shown(splits, None)["train"]


def test_the_seed_chooses_and_nothing_else(splits):
    drawn = {frozenset(shown(splits, 2, seed)["train"]) for seed in range(6)}
    assert len(drawn) == 6
    assert shown(splits, 2, 3) == shown(splits, 2, 3)


def test_each_class_is_drawn_apart(splits):
    """Else the same places of every class would be taken."""
    places = {label: set() for label in ("blue", "green", "red")}
    for seed in range(8):
        for path in shown(splits, 1, seed)["train"]:
            places[path.split("/")[-2]].add((seed, path.split("/")[-1]))
    assert places["blue"] != places["green"] != places["red"]


def test_any_image_may_be_chosen(splits):
    taken = [shown(splits, 2, seed)["train"] for seed in range(40)]
    assert set.union(*taken) == shown(splits, None)["train"]


def test_a_random_split_does_not_change_with_shots(make_folders, tmp_path):
    folder = make_folders(tmp_path / "d", 34)
    few, all_of_them = shown(folder, 3), shown(folder, None)
    assert few["val"] == all_of_them["val"]
    assert few["test"] == all_of_them["test"]
    assert few["train"] < all_of_them["train"]


def test_a_class_that_is_too_small_is_named(make_folders, tmp_path):
    for name in ("train", "val"):
        make_folders(tmp_path / name, 4)
    (tmp_path / "train" / "green" / "0.png").unlink()
    assert len(shown(tmp_path, 3)["train"]) == 9
    with pytest.raises(DataError, match=r"class 'green' has 3 training images, --shots wants 4"):
        load_splits(tmp_path, 0, 0.15, 0.15, shots=4)


# ---- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(None, ()), ("5", (5,)), ("1,2, 10,5", (1, 2, 5, 10)), (4, (4,)), ([10, 2], (2, 10))],
)
def test_numbers_of_shots(value, wanted):
    assert shots_of(value) == wanted


@pytest.mark.parametrize(
    "value", ["", "a", "1,", "0", "-2", "2,2", "1.5", 1.5, True, [1, True], []]
)
def test_what_is_no_number_of_shots(value):
    with pytest.raises(VptkitError, match=r"shots is .*expected images a class as 5 or 1,2,5"):
        shots_of(value)


# ---- trainings ----------------------------------------------------------------------------------


def test_one_training(splits, make_config, tmp_path):
    result = tune(splits, tmp_path / "a.safetensors", make_config(method="linear", shots=2))
    record = read_adapter(result.adapter).train
    assert record["config"]["shots"] == 2
    assert record["images"] == {
        "train": {"blue": 2, "green": 2, "red": 2},
        "val": {"blue": 5, "green": 5, "red": 5},
        "test": {"blue": 4, "green": 4, "red": 4},
    }
    _, found = load_splits(splits, 0, 0.15, 0.15, shots=2)
    assert record["data"] == data_digest(found)


def test_a_training_for_each_number(splits, make_config, tmp_path):
    config = make_config(method="linear", name="x")
    made = tune_shots(splits, tmp_path / "a.safetensors", config, (1, 4))
    assert [run["shots"] for run in made.runs] == [1, 4]
    for run, count in zip(made.runs, (1, 4), strict=True):
        path = tmp_path / f"a-{count}shot.safetensors"
        assert run["adapter"] == str(path)
        adapter = read_adapter(path)
        assert adapter.name == f"x-{count}shot"
        assert adapter.train["images"]["train"] == dict.fromkeys(("blue", "green", "red"), count)
        assert adapter.train["test_top1"] == run["test_top1"]
        alone = tune(
            splits,
            tmp_path / "alone.safetensors",
            make_config(method="linear", name=adapter.name, shots=count),
            force=True,
        )
        assert path.read_bytes() == alone.adapter.read_bytes()
    assert json.loads(json.dumps(made.to_json()))["runs"] == list(made.runs)
    lines = made.to_text().splitlines()
    assert lines[0].split() == [
        "shots",
        "method",
        "best",
        "epoch",
        "val_top1",
        "test_top1",
        "ood_top1",
        "adapter",
    ]
    assert lines[2].split()[0] == "4"
    assert lines[2].split()[5] == "-"
    assert lines[2].endswith("a-4shot.safetensors")


def test_a_class_too_small_is_found_before_the_first_training(splits, make_config, tmp_path):
    with pytest.raises(DataError, match="--shots wants 9"):
        tune_shots(splits, tmp_path / "a.safetensors", make_config(), (1, 9))
    assert list(tmp_path.iterdir()) == []


def test_existing_adapters_are_refused_before_the_first_training(splits, make_config, tmp_path):
    (tmp_path / "a-4shot.safetensors").write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"a-4shot\.safetensors: exists already"):
        tune_shots(splits, tmp_path / "a.safetensors", make_config(method="linear"), (1, 4))
    assert [path.name for path in tmp_path.iterdir()] == ["a-4shot.safetensors"]


def test_resume_keeps_what_is_done(splits, make_folders, make_config, tmp_path):
    config, output = make_config(method="linear", name="x"), tmp_path / "a.safetensors"
    whole = tune_shots(splits, tmp_path / "whole.safetensors", config, (1, 2))

    def killed(data, path, *args, **more):
        if "2shot" in path.name:
            raise KeyboardInterrupt
        return tune(data, path, *args, **more)

    with pytest.raises(KeyboardInterrupt):
        tune_shots(splits, output, config, (1, 2), tune=killed)
    done = (tmp_path / "a-1shot.safetensors").stat().st_mtime_ns
    again = tune_shots(splits, output, config, (1, 2), resume=True)
    assert (tmp_path / "a-1shot.safetensors").stat().st_mtime_ns == done
    for run, other in zip(again.runs, whole.runs, strict=True):
        assert {**run, "adapter": ""} == {**other, "adapter": ""}
    for other in ({"golden": 4}, {"seed": 1}):
        with pytest.raises(OutputError, match=r"a-1shot\.safetensors: exists already, of other"):
            tune_shots(splits, output, make_config(method="linear", **other), (1, 2), resume=True)
    changed = make_config(method="linear", golden=4)
    forced = tune_shots(splits, output, changed, (1, 2), resume=True, force=True)
    assert read_adapter(forced.runs[0]["adapter"]).train["config"]["golden"] == 4
    make_folders(tmp_path / "d", 6, 40)
    with pytest.raises(OutputError, match=r"a-1shot\.safetensors: exists already, of other"):
        tune_shots(tmp_path / "d", output, config, (1, 2), resume=True)


def test_resume_with_other_weights_is_refused(splits, make_vit, make_config, tmp_path):
    output = tmp_path / "a.safetensors"
    tune_shots(splits, output, make_config(method="linear"), (1, 2))
    save_file(make_vit(seed=7).state_dict(), tmp_path / "other.safetensors")
    other = make_config(method="linear", weights=tmp_path / "other.safetensors")
    with pytest.raises(OutputError, match=r"a-1shot\.safetensors: exists already, of other"):
        tune_shots(splits, output, other, (1, 2), resume=True)


def test_the_full_set_is_trained_once_for_all_shots(splits, make_config, tmp_path, monkeypatch):
    output = tmp_path / "a.safetensors"
    config = make_config(method="ln", epochs=1)
    tune_shots(splits, output, config, (1, 2))
    trained = []
    real = run_module.train_phases
    monkeypatch.setattr(
        run_module,
        "train_phases",
        lambda training, **more: (
            trained.append(training.files.adapter.name) or real(training, **more)
        ),
    )
    with_full = replace(config, full_data=splits)
    with pytest.raises(OutputError, match=r"a-1shot\.safetensors: exists already, of other"):
        tune_shots(splits, output, with_full, (1, 2), resume=True)  # they have no proxy
    assert trained == ["a.full.safetensors"]
    made = tune_shots(splits, output, with_full, (1, 2), force=True)
    assert trained[1:] == ["a.full.safetensors", "a-1shot.safetensors", "a-2shot.safetensors"]
    proxies = [read_adapter(r["adapter"]).train["layer_norms"]["fsr_proxy"] for r in made.runs]
    assert {proxy["adapter"] for proxy in proxies} == {str(tmp_path / "a.full.safetensors")}
    assert proxies[0]["value"] != proxies[1]["value"]
    (tmp_path / "a-2shot.safetensors").unlink()
    again = tune_shots(splits, output, with_full, (1, 2), resume=True)
    assert again == made
    assert trained[4:] == ["a-2shot.safetensors"]


def test_a_full_set_of_other_classes_is_refused_first(splits, make_folders, make_config, tmp_path):
    other = make_folders(tmp_path / "other", 8, classes=2)
    config = make_config(method="ln", full_data=other)
    with pytest.raises(DataError, match="other: the full set must have the classes of DATA"):
        tune_shots(splits, tmp_path / "a.safetensors", config, (1, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_ood_is_reported(splits, make_folders, make_config, tmp_path):
    for split in ("train", "val", "test"):
        shutil.copytree(splits / split, tmp_path / "d" / split)
    make_folders(tmp_path / "d" / "ood", 5, 7)
    config = make_config(method="linear", name="x", allow_outside=True)
    result = tune(tmp_path / "d", tmp_path / "a.safetensors", config)
    record = read_adapter(result.adapter).train
    assert result.ood_top1 == record["ood_top1"] == result.to_json()["ood_top1"]
    assert result.ood_top1 in np.arange(16) / 15
    assert record["images"]["ood"] == {"blue": 5, "green": 5, "red": 5}
    without = tune(splits, tmp_path / "b.safetensors", config)
    assert without.ood_top1 is None
    assert without.val_top1 == result.val_top1


# ---- the command --------------------------------------------------------------------------------


def test_the_command(vptkit, splits, weights, make_config, tmp_path):
    settings = {"method": "linear", "golden": 2, "batch_size": 8, "shots": [1, 2]}
    arguments = make_config().backbone_args
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    table = ", ".join(f"{key} = {value}" for key, value in arguments.items())
    text += f'backbone = "{make_config().backbone}"\nbackbone_args = {{ {table} }}\n'
    (tmp_path / "run.toml").write_text(text)
    common = ("tune", splits, "--config", tmp_path / "run.toml", "--weights", weights)
    code, out, err = vptkit(*common, "-o", tmp_path / "a.safetensors", "--json")
    assert code == 0, err
    assert [run["shots"] for run in json.loads(out)["runs"]] == [1, 2]
    code, out, _ = vptkit(*common, "-o", tmp_path / "b.safetensors", "--shots", "1,3")
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["shots", "1", "3", "test", "wrote", "next:"]
    assert "-3shot.safetensors" in lines[-1]
    code, out, _ = vptkit(*common, "-o", tmp_path / "c.safetensors", "--shots", 2, "--json")
    assert code == 0
    assert json.loads(out)["adapter"].endswith("c.safetensors")
    code, out, err = vptkit(*common, "-o", tmp_path / "d.safetensors", "--shots", "two")
    assert code == 2
    assert "shots is 'two'" in err


@pytest.mark.slow
def test_a_series_of_auto_says_what_was_kept(splits, make_config, tmp_path):
    config = make_config(method="auto", epochs=1)
    made = tune_shots(splits, tmp_path / "a.safetensors", config, (1, 8), tune=tune)
    assert [run["method"] for run in made.runs] == [
        read_adapter(tmp_path / f"a-{run['shots']}shot.safetensors").train["auto"]["kept"]
        for run in made.runs
    ]
    assert made.to_text().splitlines()[1].split()[1] == made.runs[0]["method"]
