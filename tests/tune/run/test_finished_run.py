"""`--resume` of a run that is over."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")


from vptkit.errors import OutputError  # noqa: E402
from vptkit.formats.adapter import read_adapter, write_adapter  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.run.finished_run import finished_record  # noqa: E402


@pytest.mark.parametrize(
    "settings",
    [
        {"form": "twhiten"},
        {"method": "ln", "rescale": "gamma"},
        pytest.param({"method": "ln", "rescale": "all", "select": "last"}, marks=pytest.mark.slow),
    ],
)
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


IDENTITY = ("config", "data", "backbone", "labels")


@pytest.fixture(scope="module")
def finished(splits, make_config, tmp_path_factory):
    """(adapter of a finished run that tuned LayerNorms, its identity, its settings)."""
    config = make_config(method="ln", epochs=1)
    path = tmp_path_factory.mktemp("finished") / "a.safetensors"
    record = read_adapter(tune(splits, path, config).adapter).train
    return path, {key: record[key] for key in IDENTITY}, config


def test_the_record_of_the_same_run(finished):
    path, identity, config = finished
    assert finished_record(path, identity, config) == read_adapter(path).train


@pytest.mark.parametrize("key", IDENTITY)
def test_an_adapter_of_something_else_is_refused(finished, key):
    path, identity, config = finished
    with pytest.raises(OutputError, match=r"a\.safetensors: exists already, of other settings"):
        finished_record(path, {**identity, key: "other"}, config)


def test_a_run_that_lacks_the_proxy_is_not_the_run_with_a_full_set(finished, splits):
    path, identity, config = finished
    with pytest.raises(OutputError, match="exists already, of other settings"):
        finished_record(path, identity, replace(config, full_data=splits))


def test_settings_that_an_older_vptkit_did_not_know_stood_at_their_defaults(finished, tmp_path):
    path, identity, config = finished
    adapter = read_adapter(path)
    older = {key: value for key, value in identity["config"].items() if key != "patience"}
    adapter.train["config"] = older
    write_adapter(tmp_path / "old.safetensors", adapter)
    assert finished_record(tmp_path / "old.safetensors", identity, config)["config"] == older
    asked = {**identity, "config": {**identity["config"], "patience": 3}}
    with pytest.raises(OutputError, match="of other settings"):
        finished_record(tmp_path / "old.safetensors", asked)


def test_an_adapter_from_before_there_were_temperatures(finished, splits, tmp_path):
    path, _, config = finished
    adapter = read_adapter(path)
    del adapter.train["confidence"], adapter.train["config"]["calibrate"]
    write_adapter(tmp_path / "a.safetensors", adapter)
    result = tune(splits, tmp_path / "a.safetensors", config, resume=True)
    assert result.confidence is result.to_text()["confidence"] is None


def test_what_is_no_adapter_is_refused(finished, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already, of other settings"):
        finished_record(tmp_path / "a.safetensors", finished[1])
