"""The training on the full set, and the FSR proxy."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")


from tests.support.tuning_runs import Stop, names  # noqa: E402
from vptkit.errors import DataError, OutputError  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.run.full_data_run import fsr_proxy, full_config, full_output  # noqa: E402
from vptkit.tune.run.run_result import TuneResult  # noqa: E402


def test_the_proxy_is_a_ratio_of_shifts(splits, make_folders, make_config, tmp_path):
    full = tmp_path / "full"
    for seed, (name, count) in enumerate({"train": 16, "val": 5}.items(), 20):
        make_folders(full / name, count, seed)
    config = make_config(method="ln", full_data=full, shots=2)
    result = tune(splits, tmp_path / "a.safetensors", config)
    proxy = result.layer_norms["fsr_proxy"]
    whole = read_adapter(tmp_path / "a.full.safetensors").train
    assert whole["images"]["train"] == {"blue": 16, "green": 16, "red": 16}
    there = whole["layer_norms"]
    assert proxy["shift_full"] == there["shift"]["total"]
    ratio = result.layer_norms["shift"]["total"] / there["shift"]["total"]
    assert proxy["value"] == ratio != 1.0
    assert "fsr_proxy" not in there
    assert "fsr" not in json.dumps(there)


def test_the_same_set_has_ratio_one(splits, make_config, tmp_path):
    config = make_config(method="ln", full_data=splits, rescale="gamma")
    result = tune(splits, tmp_path / "a.safetensors", config)
    assert result.layer_norms["fsr_proxy"]["value"] == 1.0


def test_no_proxy_without_a_full_set(splits, make_config, tmp_path):
    result = tune(splits, tmp_path / "a.safetensors", make_config(method="ln"))
    assert "fsr_proxy" not in result.layer_norms


def test_a_full_set_that_does_not_fit_is_refused_first(splits, make_folders, make_config, tmp_path):
    other = make_folders(tmp_path / "other", 8, classes=2)
    config = make_config(method="ln", full_data=other)
    with pytest.raises(DataError, match=r"other: the full set must have the classes of DATA.*red"):
        tune(splits, tmp_path / "a.safetensors", config, progress=Stop(1))
    config = make_config(method="ln", full_data=splits)
    (tmp_path / "a.full.checkpoint.safetensors").write_bytes(b"of another day")
    with pytest.raises(OutputError, match=r"a\.full\.checkpoint.*was interrupted"):
        tune(splits, tmp_path / "a.safetensors", config, progress=Stop(1))
    (tmp_path / "a.full.safetensors").write_bytes(b"precious")
    for resume in (False, True):  # nothing is there to be resumed: it is another run's
        with pytest.raises(OutputError, match=r"a\.full\.safetensors: exists already"):
            tune(splits, tmp_path / "a.safetensors", config, resume=resume, progress=Stop(1))
    assert (tmp_path / "a.full.safetensors").read_bytes() == b"precious"


def test_a_run_killed_behind_the_full_set_resumes(splits, make_config, tmp_path, monkeypatch):
    """The full set's adapter is there already, and is this run's own."""
    config = make_config(method="ln", full_data=splits, name="x")
    output = tmp_path / "a.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(
            "vptkit.tune.run.write_run.golden_answers",
            lambda _, a, *__: {} if a.name != "x" else 1 / 0,
        )
        with pytest.raises(ZeroDivisionError):
            tune(splits, output, config)
    full = (tmp_path / "a.full.safetensors").stat().st_mtime_ns
    assert not output.exists()
    result = tune(splits, output, config, resume=True)
    assert (tmp_path / "a.full.safetensors").stat().st_mtime_ns == full  # not trained again
    assert result.layer_norms["fsr_proxy"]["value"] == 1.0


def test_a_run_killed_in_the_full_set_resumes(splits, make_config, tmp_path):
    config = make_config(method="ln", full_data=splits, name="x")
    whole = tune(splits, tmp_path / "a.safetensors", config)
    (tmp_path / "b").mkdir()
    output = tmp_path / "b" / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        tune(splits, output, config, progress=Stop(3 * 24 + 5))
    assert (tmp_path / "b" / "a.full.checkpoint.safetensors").exists()
    tune(splits, output, config, resume=True)
    assert names(tmp_path / "b") == names(tmp_path) - {"b"}
    one, other = (read_adapter(path).train["layer_norms"] for path in (whole.adapter, output))
    assert one["fsr_proxy"]["value"] == other["fsr_proxy"]["value"]


def test_the_settings_of_the_full_set(make_config, tmp_path):
    """All images, the same training; what comes behind it is the run's own affair."""
    settings = {"method": "ln", "epochs": 7, "seed": 3, "lr_ln": 0.5}
    own = {"shots": 2, "rescale": "both", "refit_epochs": 4, "name": "x", "full_data": tmp_path}
    assert full_config(make_config(**settings, **own)) == make_config(**settings)
    assert full_output(tmp_path / "a.b.safetensors") == tmp_path / "a.b.full.safetensors"


@pytest.mark.parametrize(("there", "value"), [(4.0, 0.375), (0.0, None)])
def test_the_proxy_where_nothing_moved(tmp_path, there, value):
    """A ratio to nothing is no number."""
    full = TuneResult(
        adapter=tmp_path / "a.full.safetensors",
        trainable=1,
        trainable_prompts=1,
        best_epoch=1,
        val_top1=1.0,
        test_top1=None,
        seconds=0.0,
        device="cpu",
        metrics=tmp_path / "a.full.metrics.jsonl",
        layer_norms={"shift": {"total": there}},
    )
    proxy = fsr_proxy({"shift": {"total": 1.5}}, full)
    assert proxy == {"value": value, "shift_full": there, "adapter": str(full.adapter)}
