"""Sweeps without Ray: the book, the ranking, and what becomes of the best trial."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.support.serial_runner import Serial
from vptkit.errors import DataError, OutputError, VptkitError
from vptkit.formats.adapter import read_adapter
from vptkit.progress import SILENT
from vptkit.tune.idle_settings import without_idle
from vptkit.tune.run import load_run
from vptkit.tune.run.tune_run import tune
from vptkit.tune.sweep import run_sweep
from vptkit.tune.sweep import trial as sweep_trial
from vptkit.tune.sweep.run_sweep import leaderboard_table, sweep, sweep_from_mapping
from vptkit.tune.sweep.trial import record_of, require_inputs
from vptkit.tune.sweep.trial_store import open_book


@pytest.fixture
def plan(make_config, splits):
    """A function: a sweep on the tiny model."""

    def make(space=None, **fixed):
        config = make_config()
        settings = {
            "backbone": config.backbone,
            "backbone_args": config.backbone_args,
            "weights": str(config.weights),
            "method": "bpt",
            "epochs": 3,
            "batch_size": 8,
            "prompts": 3,
            "rank": 5,
            "golden": 3,
            "whiten_images": 12,
            **fixed,
        }
        if "method" in fixed or "method" in (space or {}):  # not those of bpt
            method = fixed.get("method", "ln")
            settings = without_idle({**settings, "method": method})
        space = space or {"lr": [1e-3, 3e-2], "wd": [0.0, 0.1]}
        return sweep_from_mapping(
            {
                "data": str(splits),
                "tune": {k: v for k, v in settings.items() if k not in space},
                "space": space,
            }
        )

    return make


def test_a_sweep_ranks_by_val_and_makes_the_best_adapter(plan, splits, tmp_path):
    swept = plan()
    document = sweep(swept, tmp_path / "out", Serial(tmp_path / "store"))
    rows = document["leaderboard"]
    assert {row["state"] for row in rows} == {"finished"}
    losses = [row["val_loss"] for row in rows]
    assert losses == sorted(losses)
    assert document["chosen_by"] == "val_loss"
    best = document["best"]
    assert best["trial"] == rows[0]["trial"]
    # The adapter is byte for byte that of `vptkit tune` with these settings.
    alone = tmp_path / "best.safetensors"
    result = tune(splits, alone, swept.config(best["trial"]))
    assert (tmp_path / "out/best.safetensors").read_bytes() == alone.read_bytes()
    assert (best["val_top1"], best["test_top1"]) == (result.val_top1, result.test_top1)
    assert json.loads((tmp_path / "out/leaderboard.json").read_text()) == document
    assert (tmp_path / "out/leaderboard.png").stat().st_size > 10_000
    with (tmp_path / "out/leaderboard.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["trial"] for row in table] == [str(row["trial"]) for row in rows]
    assert table[0]["lr"] == str(rows[0]["settings"]["lr"])
    text = leaderboard_table(document)
    assert text.splitlines()[1].split()[:2] == [str(rows[0]["trial"]), "finished"]
    assert f"best: trial {best['trial']}" in text


@pytest.mark.long
def test_a_sweep_of_several_labels_stopped_between_epochs(plan, splits, tmp_path):
    """Ranked by log-loss too; what it shows is mAP. It goes on to the adapter of one run."""
    swept = plan({"lr_ln": [1e-3, 1e-1]}, method="ln", task="multilabel", epochs=2)
    with pytest.raises(KeyboardInterrupt):
        sweep(swept, tmp_path / "out", Serial(tmp_path / "store", stop_after=1))
    runner = Serial(tmp_path / "store")
    document = sweep(swept, tmp_path / "out", runner)
    assert runner.began[0] == 1
    alone = tmp_path / "best.safetensors"
    result = tune(splits, alone, swept.config(document["best"]["trial"]))
    assert (tmp_path / "out/best.safetensors").read_bytes() == alone.read_bytes()
    first, second = document["leaderboard"]
    assert first["val_loss"] < second["val_loss"]
    assert first["val_top1"] is None
    assert first["val_map"] == document["best"]["val_map"] == result.multilabel["val"]["map"]
    assert document["best"]["test_map"] == result.multilabel["test"]["map"]
    text = leaderboard_table(document)
    assert "val mAP" in text.splitlines()[0]
    assert f"val mAP {first['val_map']:.4f}, test {document['best']['test_map']:.4f}" in text
    with (tmp_path / "out/leaderboard.csv").open() as stream:
        assert next(csv.DictReader(stream))["val_map"] == str(first["val_map"])
    assert sweep(swept, tmp_path / "out", Serial(tmp_path / "store")) == document


def test_one_label_and_several_are_not_compared(plan, tmp_path):
    with pytest.raises(VptkitError, match="varies task"):
        sweep(plan({"task": ["single", "multilabel"]}), tmp_path / "out", Serial(tmp_path))


def test_test_images_are_looked_at_once(plan, tmp_path, monkeypatch):
    looks = []

    def watched(*args, test=True, **named):
        looks.append(test)
        return tune(*args, test=test, **named)

    copies = []
    real = load_run.twice
    monkeypatch.setattr(load_run, "twice", lambda *given: copies.append(1) or real(*given))
    monkeypatch.setattr(sweep_trial, "tune", watched)
    sweep(plan({"lr": [1e-3, 1e-2]}), tmp_path / "out", Serial(tmp_path / "store"))
    assert looks == [False, False, True]
    assert len(copies) == 1  # what is in two splits is looked for by the best one
    rows = json.loads((tmp_path / "out/leaderboard.json").read_text())["leaderboard"]
    assert not any("test" in key for row in rows for key in row)


def test_the_fuller_set_is_for_the_best_alone(plan, splits, tmp_path, monkeypatch):
    tuned = []

    def watched(data, output, config, **named):
        tuned.append(config.full_data)
        return tune(data, output, config, **named)

    monkeypatch.setattr(sweep_trial, "tune", watched)
    swept = plan({"lr_ln": [1e-3, 1e-2]}, method="ln", full_data=str(splits), epochs=1)
    sweep(swept, tmp_path / "out", Serial(tmp_path / "store"))
    assert tuned == [None, None, splits]
    norms = read_adapter(tmp_path / "out/best.safetensors").train["layer_norms"]
    assert norms["fsr_proxy"]["value"] is not None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"backbone": "vit_tinny"}, "timm has no model of this name"),
        ({"space": {"weights": ["nowhere.safetensors"]}}, "nowhere.safetensors"),
        ({"space": {"shots": [1, 99]}}, "99"),
    ],
)
def test_what_no_trial_can_have_is_told_before_anything_starts(plan, tmp_path, changed, message):
    with pytest.raises(VptkitError, match=message):
        sweep(plan(**changed), tmp_path / "out", Serial(tmp_path / "store"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_strict_sweep_looks_for_copies_before_its_trials(plan, splits, tmp_path):
    data = shutil.copytree(splits, tmp_path / "data")
    for kind in ("train", "test"):  # one image, written anew into two splits
        (data / kind / "red" / "copy.png").write_bytes(picture_bytes())
    with pytest.raises(DataError, match=r"test/red/copy\.png is train/red/copy\.png"):
        require_inputs(data, [plan(strict=True).config(0)])
    require_inputs(data, [plan().config(0)])


def picture_bytes() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((96, 96)).save(stream, "png")
    return stream.getvalue()


def test_without_test_nothing_is_measured_on_it(splits, make_config, tmp_path):
    with_test = tune(splits, tmp_path / "a.safetensors", make_config())
    without = tune(splits, tmp_path / "b.safetensors", make_config(), test=False)
    assert with_test.test_top1 is not None
    assert without.test_top1 is None
    assert without.val_top1 == with_test.val_top1


def test_a_stopped_sweep_goes_on_where_it_was(plan, tmp_path):
    swept, store = plan({"lr": [1e-3, 1e-2, 1e-1]}), tmp_path / "store"
    whole = sweep(swept, tmp_path / "whole", Serial(tmp_path / "other"))
    with pytest.raises(KeyboardInterrupt):
        sweep(swept, tmp_path / "out", Serial(store, stop_after=6))  # 4 for trial 0, 2 for trial 1
    rows = json.loads((tmp_path / "out/leaderboard.json").read_text())["leaderboard"]
    assert [(row["trial"], row["state"]) for row in rows] == [
        (0, "finished"),
        (1, "running"),
        (2, "waiting"),
    ]
    runner = Serial(store)
    document = sweep(swept, tmp_path / "out", runner)
    assert runner.began == {1: 2, 2: 0}
    assert document["best"] | {"adapter": None} == whole["best"] | {"adapter": None}
    before = {row["trial"]: row["val_top1"] for row in whole["leaderboard"]}
    assert {row["trial"]: row["val_top1"] for row in document["leaderboard"]} == before
    assert {r["trial"]: r["workers"] for r in document["leaderboard"]} == {0: 1, 1: 2, 2: 1}
    idle, out = Serial(store), tmp_path / "out"
    assert sweep(swept, out, idle) == document
    assert idle.began == {}


def test_a_finished_sweep_stays_as_it_is(plan, tmp_path, monkeypatch):
    """Test is not measured again; what does not agree is made again."""
    swept, out, runner = plan({"lr": [1e-3, 1e-2]}), tmp_path / "out", Serial(tmp_path / "store")
    document = sweep(swept, out, runner)
    records = [json.loads(line) for line in (out / "best.metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [0, 1, 2, 3]
    made = []
    monkeypatch.setattr(
        sweep_trial,
        "tune",
        lambda data, path, *a, **k: made.append(path) or tune(data, path, *a, **k),
    )
    before = {path: path.stat().st_mtime_ns for path in out.glob("[bl]e*.*")}
    assert len(before) >= 5
    assert sweep(swept, out, runner) == document
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert made == []
    (out / "best.safetensors").unlink()
    assert sweep(swept, out, runner) == document
    other = json.loads((out / "leaderboard.json").read_text())
    other["best"]["trial"] = 1 - other["best"]["trial"]
    (out / "leaderboard.json").write_text(json.dumps(other))
    assert sweep(swept, out, runner) == document
    assert made == 2 * [out / "best.safetensors"]


@pytest.mark.parametrize(
    "space",
    [
        {"seed": [0, 1]},
        {"seed": [0, 1], "task": ["multilabel"]},
        {"val_share": [0.2, 0.3]},
        {"test_share": [0.2, 0.3], "wd": [0.0]},
    ],
)
def test_trials_are_judged_on_the_same_images(plan, make_folders, make_config, tmp_path, space):
    (key, *_), swept = space, plan(space)
    if key == "seed":
        require_inputs(swept.data, [swept.config(0), swept.config(1)])  # it has a val split
    else:
        with pytest.raises(VptkitError, match=f"{key} is 0.2, which does nothing here"):
            require_inputs(swept.data, [swept.config(0)])
    mixed = make_folders(tmp_path / "mixed", 8)
    require_inputs(mixed, [swept.config(0)])
    with pytest.raises(VptkitError, match=f"no val split of its own.*the sweep varies {key}:"):
        require_inputs(mixed, [swept.config(0), swept.config(1)])


@pytest.mark.slow
def test_trials_on_few_images_are_judged_by_what_is_held_out(make_folders, plan, tmp_path):
    folder = make_folders(tmp_path / "d", 3)
    swept = replace(plan({"method": ["ln", "linear"]}, epochs=2), data=folder)
    document = sweep(swept, tmp_path / "out", Serial(tmp_path / "store"))
    assert {row["state"] for row in document["leaderboard"]} == {"finished"}
    best, adapter = document["best"], tmp_path / "alone" / "best.safetensors"
    adapter.parent.mkdir()
    result = tune(folder, adapter, swept.config(best["trial"]))
    assert result.cross_validation["folds"] == 3
    assert best["val_top1"] == result.val_top1
    assert (tmp_path / "out/best.safetensors").read_bytes() == adapter.read_bytes()


def test_what_nothing_could_judge_is_refused_before_the_trials(make_folders, plan, tmp_path):
    swept = plan({"lr_ln": [1e-3, 1e-2]}, method="ln")
    one, few = make_folders(tmp_path / "one", 1), make_folders(tmp_path / "few", 2)
    with pytest.raises(DataError, match="one image a class, so nothing says which training"):
        require_inputs(one, [swept.config(0)])
    with pytest.raises(DataError, match="one image a class, so nothing says which training"):
        require_inputs(few, [replace(swept.config(0), shots=1)])
    require_inputs(few, [swept.config(0)])
    with pytest.raises(VptkitError, match="rescale is both, but there is no val split"):
        require_inputs(few, [swept.config(0), replace(swept.config(1), rescale="both")])


def test_a_trial_that_cannot_work_is_told_and_the_others_go_on(plan, tmp_path):
    swept = plan({"lr": [1e-2, 1e29]}, clip=0.0)
    document = sweep(swept, tmp_path / "out", Serial(tmp_path / "store"))
    assert [row["state"] for row in document["leaderboard"]] == ["finished", "failed"]
    assert "the loss became" in leaderboard_table(document)


def test_nothing_finished_is_an_error_that_says_why(plan, tmp_path):
    swept = plan({"lr": [1e29]}, clip=0.0)
    with pytest.raises(VptkitError, match="no trial ran to its end; the first says: the loss"):
        sweep(swept, tmp_path / "out", Serial(tmp_path / "store"))
    assert (tmp_path / "out/leaderboard.csv").exists()


def test_a_folder_keeps_to_its_sweep(plan, tmp_path):
    open_book(tmp_path / "out", plan())
    with pytest.raises(OutputError, match="another sweep; what differs: space, trials"):
        open_book(tmp_path / "out", plan({"lr": [1.0]}))
    with pytest.raises(OutputError, match="what differs: tune"):
        open_book(tmp_path / "out", plan(epochs=4))
    (tmp_path / "out/trials/0000.json").write_text("{}")
    with pytest.raises(DataError, match=r"0000.json: damaged"):
        open_book(tmp_path / "out", plan())
    book = open_book(tmp_path / "out", plan({"lr": [1.0]}), force=True)
    assert [trial.state for trial in book.trials] == ["waiting"]
    assert not (tmp_path / "out/trials/0000.json").exists()
    (tmp_path / "killed").mkdir()
    for ending in ("part", "lock"):  # also of the first look whether it can be written
        (tmp_path / f"killed/.sweep.json.abc.{ending}").touch()
    assert open_book(tmp_path / "killed", plan()).pending()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").touch()
    with pytest.raises(OutputError, match="holds no sweep"):
        open_book(tmp_path / "mine", plan(), force=True)
    assert (tmp_path / "mine/thesis.tex").exists()


def test_two_at_once_are_refused(plan, tmp_path):
    class Greedy(Serial):
        def run(self, swept, book):
            sweep(swept, tmp_path / "out", Serial(self.store))

    with pytest.raises(OutputError, match="another vptkit sweep is running"):
        sweep(plan(), tmp_path / "out", Greedy(tmp_path / "store"))


def test_killed_before_its_picture_a_sweep_is_not_over(plan, tmp_path, monkeypatch):
    small, runner = plan({"lr": [1e-3]}, epochs=1), Serial(tmp_path / "store")
    output = tmp_path / "out"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_sweep, "_plot", killed)
        with pytest.raises(KeyboardInterrupt):
            sweep(small, output, runner)
    drawn = []
    monkeypatch.setattr(run_sweep, "_plot", lambda _, path: drawn.append(path.name))
    for name in (".best.safetensors.aaaaaaaa", ".leaderboard.json.bbbbbbbb"):
        (output / f"{name}.lock").touch()  # the second of a kill behind everything
        sweep(small, output, runner)
        assert drawn == ["leaderboard.png"]
    assert {p.name for p in output.iterdir() if p.name.startswith(".")} == {".lock"}


def test_nothing_is_written_through_a_link(plan, tmp_path):
    """A folder that somebody prepared: its lock and its checkpoint lead to files of the user."""
    folder, victim = tmp_path / "out", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("precious")
    (folder / ".lock").symlink_to(victim)
    with pytest.raises(OutputError, match=r"\.lock: a symbolic link"):
        sweep(plan({"lr": [1e-2]}), folder, Serial(tmp_path / "store"))
    (folder / ".lock").unlink()

    class Planter(Serial):
        def fetch(self, book, trial, target):
            (folder / "best.checkpoint.safetensors").symlink_to(victim)
            return super().fetch(book, trial, target)

    sweep(plan({"lr": [1e-2]}), folder, Planter(tmp_path / "store"))
    assert victim.read_text() == "precious"
    assert (folder / "best.safetensors").exists()


def test_a_book_is_not_kept_behind_a_link(plan, tmp_path):
    open_book(tmp_path / "out", plan())
    (tmp_path / "out/trials").rename(tmp_path / "elsewhere")
    (tmp_path / "out/trials").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="trials: a symbolic link"):
        open_book(tmp_path / "out", plan())


@pytest.mark.parametrize(
    "change",
    [
        {"history": [1]},
        {"history": {"a": 1}},
        {"history": lambda first: [{**first, "epoch": "x"}]},
        {"history": lambda first: [{**first, "epoch": 1.5}]},
        {"history": lambda first: [{**first, "finished": 1}]},
        {"checkpoint": "../../elsewhere"},
        {"checkpoint": ["x"]},
        {"state": []},
    ],
)
def test_a_trial_that_a_stranger_wrote(plan, tmp_path, change):
    book = open_book(tmp_path / "out", plan())
    book.result(0, record(1, 0.5))
    path = tmp_path / "out/trials/0000.json"
    found = json.loads(path.read_text())
    first = found["history"][0]
    whole = {name: value(first) if callable(value) else value for name, value in change.items()}
    path.write_text(json.dumps({**found, **whole}))
    with pytest.raises(DataError, match=r"0000.json: damaged"):
        open_book(tmp_path / "out", plan())


def test_a_trial_that_is_no_json(plan, tmp_path):
    open_book(tmp_path / "out", plan()).result(0, record(1, 0.5))
    for text in ("[" * 100_000, '{"state": NaN}', "[]"):
        (tmp_path / "out/trials/0000.json").write_text(text)
        with pytest.raises(DataError, match=r"0000.json.*Remove it"):
            open_book(tmp_path / "out", plan())


def test_a_disk_that_is_full_once_the_sweep_has_its_name(plan, tmp_path, monkeypatch):
    real = os.mkdir

    def full(path: object, *rest: object, **named: object) -> None:
        if str(path).endswith("trials"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, *rest, **named)

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(OutputError, match="out: cannot be written: No space left"):
        sweep(plan(), tmp_path / "out", Serial(tmp_path / "store"))


def record(epoch, top1, **more):
    return {
        "epoch": epoch,
        "best_epoch": epoch,
        "best_top1": top1,
        "best_loss": 1.0,
        "finished": False,
        "node": "a",
        "began": 0,
        **more,
    }


class Counter:
    def __init__(self):
        self.total, self.done, self.text = None, 0, ""

    def update(self, advance=1, text=""):
        self.done, self.text = self.done + advance, text


def test_an_epoch_done_twice_counts_once(plan, tmp_path):
    counter = Counter()
    book = open_book(tmp_path / "out", plan({"lr": [0.1, 0.2]}), progress=counter)
    assert counter.total == 6
    book.result(0, record(1, 0.5))
    book.result(0, record(2, 0.6))
    book.result(0, record(2, 0.6, node="b", began=1))  # its node died before it was stored
    assert counter.done == 2
    assert [(r["epoch"], r["node"]) for r in book.trials[0].history] == [(1, "a"), (2, "b")]
    assert book.trials[0].to_json()["workers"] == 2
    book.end(0, "pruned")
    assert counter.total == 5  # one epoch less to do
    assert counter.text == "1 of 2 trials; trial 0 pruned val log-loss 1.000; best 1.000 (trial 0)"
    again = open_book(tmp_path / "out", plan({"lr": [0.1, 0.2]}), progress=counter)
    assert [trial.state for trial in again.trials] == ["pruned", "waiting"]
    assert counter.total == 3


def test_who_was_pruned_is_never_chosen(plan, tmp_path):
    book = open_book(tmp_path / "out", plan({"lr": [0.1, 0.2, 0.3]}), progress=SILENT)
    book.result(0, record(1, 0.9))
    book.end(0, "pruned")
    assert book.best() is None
    # the higher accuracy of a few images weighs less than the log-loss
    for number, top1, loss in ((1, 0.9, 0.5), (2, 0.8, 0.4)):
        book.result(number, record(3, top1, best_loss=loss))
        book.end(number, "finished")
    assert [trial.number for trial in book.ranked()] == [2, 1, 0]
    assert book.best().number == 2


def test_the_best_adapter_has_what_the_trial_had(plan, tmp_path):
    document = sweep(plan({"lr": [1e-2]}), tmp_path / "out", Serial(tmp_path / "store"))
    adapter = read_adapter(tmp_path / "out/best.safetensors")
    assert adapter.train["config"]["lr"] == 1e-2
    first = document["leaderboard"][0]
    assert adapter.train["val_top1"] == first["val_top1"]
    assert adapter.train["confidence"]["val_loss"][1] == first["val_loss"]


def test_not_a_checkpoint(tmp_path, weights):
    with pytest.raises(DataError, match="not a checkpoint"):
        record_of(weights)
