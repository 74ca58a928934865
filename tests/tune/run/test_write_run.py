"""The adapter of a run and its golden answers."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")


from tests.support.tuning_runs import Count, Stop, names  # noqa: E402
from vptkit.errors import DataError, OutputError  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.backbone.timm_backbone import preprocess_of  # noqa: E402
from vptkit.tune.data.dataset import DataSet  # noqa: E402
from vptkit.tune.data.splits import load_splits  # noqa: E402
from vptkit.tune.run.write_run import golden_answers  # noqa: E402


def test_a_run_killed_behind_its_last_epoch_resumes(splits, make_config, tmp_path, monkeypatch):
    config = make_config(method="vpt", name="x")
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    with monkeypatch.context() as patch:
        patch.setattr(
            "vptkit.tune.run.write_run.golden_answers", lambda *_: (_ for _ in ()).throw(SystemExit)
        )
        with pytest.raises(SystemExit):
            tune(splits, tmp_path / "b.safetensors", config)
    result = tune(splits, tmp_path / "b.safetensors", config, resume=True)
    assert result.adapter.read_bytes() == whole.adapter.read_bytes()


@pytest.mark.parametrize(("count", "chosen"), [(1, [0]), (2, [0, 14]), (4, [0, 4, 9, 14])])
def test_golden_images_are_spread_over_the_split(
    splits, make_vit, make_config, tmp_path, count, chosen
):
    """The classes follow each other in a split: its first images would be of one class."""
    result = tune(splits, tmp_path / "a.safetensors", make_config(epochs=1))
    adapter, model = read_adapter(result.adapter), make_vit()
    data = DataSet(load_splits(splits, 0, 0.15, 0.15)[1]["val"], preprocess_of(model))
    golden = golden_answers(model, adapter, data, count)
    assert np.array_equal(golden["golden.images"], data.prepared(np.array(chosen)))
    assert golden["golden.images"].dtype == np.uint8
    assert (golden["golden.logits"].dtype, golden["golden.logits"].shape) == ("float32", (count, 3))


def test_no_more_golden_images_than_there_are(splits, make_config, tmp_path):
    result = tune(splits, tmp_path / "a.safetensors", make_config(epochs=1, golden=100))
    images, logits = read_adapter(result.adapter).golden()
    assert (len(images), len(logits)) == (15, 15)
    assert len(np.unique(images.reshape(15, -1), axis=0)) == 15


def test_the_record_says_what_was_chosen_and_how(splits, make_config, tmp_path):
    config = make_config(epochs=3)
    result = tune(splits, tmp_path / "a.safetensors", config)
    record = read_adapter(result.adapter).train
    for key in (
        "best_epoch",
        "val_top1",
        "test_top1",
        "ood_top1",
        "layer_norms",
        "line",
        "confidence",
    ):
        assert record[key] == result.to_json()[key]
    assert record["config"] == config.to_json()
    assert record["images"]["train"] == dict.fromkeys(("blue", "green", "red"), 8)
    assert set(record["versions"]) == {"vptkit", "torch", "timm"}


@pytest.mark.parametrize("step", ["write_adapter", "write_pictures", "RunFiles.remove_dead_parts"])
def test_killed_at_its_last_steps_resume_completes_it(
    splits, make_config, tmp_path, monkeypatch, step
):
    """An adapter that still has a checkpoint is not finished; then its page is there, too."""
    config = make_config(method="ln", rescale="gamma", name="x")
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    place = "vptkit.tune.training.run_files" if "RunFiles" in step else "vptkit.tune.run.write_run"

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    output = tmp_path / "a.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(f"{place}.{step}", killed)
        with pytest.raises(KeyboardInterrupt):
            tune(splits, output, config)
    assert output.exists() == (step != "write_adapter")
    assert (tmp_path / "a.html").exists() == ("RunFiles" in step)
    result = tune(splits, output, config, resume=True)
    own = {name for name in names(tmp_path) if name.startswith("a.")}
    assert own == {"a.safetensors", "a.metrics.jsonl", "a.html"}
    assert output.read_bytes() == whole.adapter.read_bytes()
    assert result.page == tmp_path / "a.html"
    assert result.page.read_bytes() == whole.page.read_bytes()


def test_a_checkpoint_of_a_run_that_replaces_an_adapter(splits, make_config, tmp_path):
    """--resume alone keeps to the settings of the adapter; --force lets the other run go on."""
    first, second = (make_config(method="vpt", seed=seed, name="x") for seed in (0, 1))
    output = tmp_path / "a.safetensors"
    tune(splits, output, first)
    before = output.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        tune(splits, output, second, force=True, progress=Stop(30))
    with pytest.raises(OutputError, match=r"exists already, of other settings.*with --resume"):
        tune(splits, output, second, resume=True)
    with pytest.raises(DataError, match=r"checkpoint.*belongs to another run: config.seed was 1"):
        tune(splits, output, first, resume=True)  # metrics are the second's already
    assert output.read_bytes() == before
    bar = Count()
    tune(splits, output, second, resume=True, force=True, progress=bar)
    assert bar.done == 24  # of 48
    whole = tune(splits, tmp_path / "whole.safetensors", second)
    assert output.read_bytes() == whole.adapter.read_bytes()
