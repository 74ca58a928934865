"""A whole run of auto: it writes the adapter that the kept method alone would have written."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from tests.support.tuning_runs import Count, Stop, names  # noqa: E402
from vptkit.errors import OutputError  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.auto import auto_run  # noqa: E402
from vptkit.tune.auto.auto_run import tried_table  # noqa: E402
from vptkit.tune.auto.candidates import NAMES, candidates  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture
def config(make_config):
    return make_config(method="auto", epochs=4, name="x")


def settle(monkeypatch, *, beats: bool) -> None:
    monkeypatch.setattr(auto_run, "_beats", lambda *_: beats)


def test_the_winner_is_the_run_that_it_would_have_been_alone(splits, config, tmp_path, monkeypatch):
    settle(monkeypatch, beats=True)
    bar = Count()
    result = tune(splits, tmp_path / "a.safetensors", config, progress=bar)
    adapter = read_adapter(result.adapter)
    kept = result.auto["kept"]
    assert kept != "linear"
    alone = tune(splits, tmp_path / "b.safetensors", candidates(config)[kept])
    other = read_adapter(alone.adapter)
    for name, value in other.tensors.items():
        assert np.array_equal(adapter.tensors[name], value), name
    assert adapter.method == other.method
    assert adapter.train["config"] == other.train["config"]
    assert (result.val_top1, result.test_top1) == (alone.val_top1, alone.test_top1)
    assert adapter.train["auto"] == result.auto == result.to_json()["auto"]
    assert bar.done == bar.total
    assert names(tmp_path) >= {"a.safetensors", "a.metrics.jsonl"}
    assert not any(name.startswith(".a.auto") for name in names(tmp_path))
    json.dumps(result.to_json(), allow_nan=False)


def test_what_was_tried_is_told(splits, config, tmp_path, monkeypatch):
    settle(monkeypatch, beats=True)
    result = tune(splits, tmp_path / "a.safetensors", replace(config, budget="9 epochs"))
    rows = {row["method"]: row for row in result.auto["tried"]}
    assert tuple(rows) == NAMES
    assert rows["linear"]["epochs"] == 0
    assert sorted(row["epochs"] for row in rows.values()) == [0, 1, 1, 2, 4]
    assert rows[result.auto["kept"]]["epochs"] == 4
    table = tried_table(result.auto)
    assert f"{result.auto['kept']} *" in table
    assert len(table.splitlines()) == len(NAMES) + 1


def test_the_probe_is_kept_where_nothing_beats_it(splits, config, tmp_path, monkeypatch):
    settle(monkeypatch, beats=False)
    result = tune(splits, tmp_path / "a.safetensors", config)
    assert result.auto["kept"] == read_adapter(result.adapter).method == "linear"
    alone = tune(splits, tmp_path / "b.safetensors", candidates(config)["linear"])
    head = "head.weight"
    assert np.array_equal(
        read_adapter(result.adapter).tensors[head], read_adapter(alone.adapter).tensors[head]
    )


@pytest.mark.parametrize(
    ("losses", "kept"),
    [([0.4, 0.4, 0.4, 0.5], "another"), ([0.1, 0.9, 0.2, 0.7], "linear")],
)
def test_better_means_by_more_than_the_noise(splits, config, tmp_path, monkeypatch, losses, kept):
    def scripted(self, contender):
        return np.full(4, 0.5) if contender.name == "linear" else np.array(losses)

    monkeypatch.setattr(auto_run._Search, "_losses", scripted)
    result = tune(splits, tmp_path / "a.safetensors", config)
    assert (result.auto["kept"] == "linear") == (kept == "linear")


def test_a_budget_ends_the_search(splits, make_config, tmp_path, monkeypatch):
    settle(monkeypatch, beats=True)
    config = make_config(method="auto", epochs=4, budget="2 epochs")
    result = tune(splits, tmp_path / "a.safetensors", config)
    assert sum(row["epochs"] for row in result.auto["tried"]) == 2


def test_few_images_are_cross_validated(make_folders, make_config, tmp_path, monkeypatch):
    settle(monkeypatch, beats=True)
    data = make_folders(tmp_path / "few", 3)
    config = make_config(method="auto", epochs=2, name="x")
    result = tune(data, tmp_path / "a.safetensors", config)
    assert result.cross_validation == {"folds": 3, "joined": 0}
    assert tuple(row["method"] for row in result.auto["tried"]) == ("linear", "ln", "vpt")
    kept = min(result.auto["tried"][1:], key=lambda row: row["val_loss"])["method"]
    assert result.auto["kept"] == kept


def test_what_was_judged_in_parts_is_not_cut_short(
    make_folders, make_config, tmp_path, monkeypatch
):
    settle(monkeypatch, beats=True)
    data = make_folders(tmp_path / "few", 3)
    config = make_config(method="auto", epochs=3, budget="1 epochs", select="soup")
    result = tune(data, tmp_path / "a.safetensors", config)
    assert [row["method"] for row in result.auto["tried"]] == ["linear", "ln"]
    assert (result.auto["kept"], result.best_epoch) == ("ln", 3)


def test_prompts_are_kept_only_if_they_beat_what_is_simpler(splits, config, tmp_path, monkeypatch):
    noise = np.array([0.0, 0.2, -0.2, 0.1, -0.1])
    for better, kept in ((0.01, "ln"), (0.3, "vpt")):
        losses = {"linear": 2 + noise, "ln": 1 + noise, "vpt": 1 - better - noise}
        monkeypatch.setattr(auto_run._Search, "_losses", lambda _, one: losses[one.name])  # noqa: B023
        output = tmp_path / f"{kept}.safetensors"
        assert tune(splits, output, config).auto["kept"] == kept


@pytest.mark.parametrize("images", [1, 3])
def test_the_decision_without_val(make_folders, make_config, tmp_path, images):
    """Of one image a class nothing can be held out, and the probe is kept."""
    data = make_folders(tmp_path / "few", images)
    result = tune(data, tmp_path / "a.safetensors", make_config(method="auto", epochs=1))
    assert result.auto["kept"] in (NAMES if images > 1 else ["linear"])


def test_a_killed_run_goes_on(splits, config, tmp_path, monkeypatch):
    settle(monkeypatch, beats=True)
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    output = tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        tune(splits, output, config, progress=Stop(70))
    assert (tmp_path / ".a.auto").is_dir()
    with pytest.raises(OutputError, match=r"\.a\.auto: a run of this name was interrupted"):
        tune(splits, output, config)
    bar = Count()
    result = tune(splits, output, config, resume=True, progress=bar)
    assert bar.done < 8 * 24
    one, other = read_adapter(result.adapter), read_adapter(whole.adapter)
    assert all(np.array_equal(one.tensors[key], value) for key, value in other.tensors.items())
    assert not (tmp_path / ".a.auto").exists()
    again = tune(splits, output, config, resume=True)
    assert (again.auto, again.val_top1) == (result.auto, result.val_top1)
    with pytest.raises(OutputError, match="exists already"):
        tune(splits, output, config)


def test_force_starts_anew_and_leaves_what_is_not_its_own(splits, config, tmp_path, monkeypatch):
    settle(monkeypatch, beats=True)
    output = tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        tune(splits, output, config, progress=Stop(70))
    (tmp_path / ".a.auto" / "letter.txt").write_text("mine")
    tune(splits, output, config, force=True)
    assert (tmp_path / ".a.auto" / "letter.txt").read_text() == "mine"


def test_a_link_in_the_place_of_the_folder_is_refused(splits, config, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".a.auto").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="not a folder of vptkit's"):
        tune(splits, tmp_path / "a.safetensors", config, force=True)


def test_several_processes_are_refused(splits, config, tmp_path, monkeypatch):
    monkeypatch.setattr(auto_run, "share", lambda: (0, 2))
    with pytest.raises(Exception, match="method auto is for one process"):
        tune(splits, tmp_path / "a.safetensors", config)
