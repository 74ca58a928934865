"""A training killed anywhere goes on to the same bytes; cycles end by themselves."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")


from tests.support.children import run_child  # noqa: E402
from tests.support.marks import quick_if  # noqa: E402
from tests.support.tuning_runs import CYCLIC, KILLED, Count, Stop, records  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.idle_settings import without_idle  # noqa: E402

RESUMED = [
    {"method": "vpt", "dropout": 0.3},
    {"method": "bpt", "form": "twhiten", "dropout": 0.1},
    {"method": "bpt", "form": "bilinear", "b_init": "whiten", "augment": "crop"},
    {"method": "bpt", "form": "fwhiten", "insert": "shallow", "compat": "released"},
    {"method": "ln+bpt", "form": "twhiten", "rescale": "all", "select": "last"},
]


@pytest.mark.parametrize(
    "settings",
    quick_if(RESUMED[:2].__contains__, RESUMED),
    ids=lambda s: "-".join(map(str, s.values())),
)
def test_a_killed_run_resumes_to_the_same_bytes(splits, make_config, tmp_path, settings):
    config = make_config(**settings, epochs=4, name="x", batch_size=9)
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    for name, after in (("b", 24 + 10), ("c", 3 * 24 - 1)):  # in the second, and in the third epoch
        output = tmp_path / f"{name}.safetensors"
        with pytest.raises(KeyboardInterrupt):
            tune(splits, output, config, progress=Stop(after))
        assert not output.exists()
        assert (tmp_path / f"{name}.checkpoint.safetensors").exists()
        bar = Count()
        result = tune(splits, output, config, resume=True, progress=bar)
        assert bar.done < 4 * 24
        assert bar.done == bar.total
        assert output.read_bytes() == whole.adapter.read_bytes()
        assert result.metrics.read_bytes() == whole.metrics.read_bytes()
        assert not (tmp_path / f"{name}.checkpoint.safetensors").exists()


@pytest.mark.slow
def test_killed_on_the_line_between_start_and_end(splits, make_config, tmp_path):
    """From a random head, too: the checkpoint of the first epoch holds what was before it."""
    config = make_config(method="vpt", head_init="zero", rescale="all", name="x")
    whole = tune(splits, tmp_path / "whole.safetensors", config)

    class OnTheLine(Count):
        def update(self, advance: int = 1, text: str = "") -> None:
            if text.startswith("alpha 0.3"):
                raise KeyboardInterrupt

    output = tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        tune(splits, output, config, progress=OnTheLine())
    tune(splits, output, config, resume=True)
    assert output.read_bytes() == whole.adapter.read_bytes()


def test_resuming_twice(splits, make_config, tmp_path):
    config = make_config(method="vpt", epochs=4, name="x")
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    output = tmp_path / "b.safetensors"
    for _ in range(3):  # each gets one epoch further
        with pytest.raises(KeyboardInterrupt):
            tune(splits, output, config, resume=True, progress=Stop(30))
    tune(splits, output, config, resume=True)
    assert output.read_bytes() == whole.adapter.read_bytes()


def test_resume_without_a_checkpoint_just_runs(splits, make_config, tmp_path):
    config = make_config(method="linear", name="x")
    first = tune(splits, tmp_path / "a.safetensors", config, resume=True)
    second = tune(splits, tmp_path / "b.safetensors", config)
    assert first.adapter.read_bytes() == second.adapter.read_bytes()


def test_a_kill_between_checkpoint_and_metrics_loses_no_record(
    splits, make_config, tmp_path, monkeypatch
):
    """The process may die between any two writes of an epoch, also of the last one."""
    config = make_config(method="vpt", name="x")
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    real, calls = os.fsync, []

    def killed(descriptor: int) -> None:
        real(descriptor)
        calls.append(descriptor)
        if len(calls) == stop:
            raise SystemExit

    for stop in (2, 4, 6, 8):  # first of all a file is tried, and each has its folder written too
        calls.clear()
        output = tmp_path / f"{stop}.safetensors"
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", killed)
            with pytest.raises(SystemExit):
                tune(splits, output, config)
        result = tune(splits, output, config, resume=True)
        assert result.metrics.read_bytes() == whole.metrics.read_bytes(), stop
        assert output.read_bytes() == whole.adapter.read_bytes(), stop


def assert_goes_on_after_sigkill(script, splits, config, settings, folder):
    """A child that kills itself leaves no adapter; the next run ends with the same bytes."""
    output = folder / "k.safetensors"
    arguments = [str(splits), str(output), json.dumps(settings)]
    done = run_child([sys.executable, "-c", script, *arguments], check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not output.exists()
    resumed = tune(splits, output, config, resume=True)
    whole = tune(splits, folder / "whole.safetensors", config)
    assert resumed.adapter.read_bytes() == whole.adapter.read_bytes()
    assert resumed.metrics.read_bytes() == whole.metrics.read_bytes()


@pytest.mark.parametrize(
    ("scores", "epochs"),
    [
        ([0.5, 0.6, 0.6, 0.6, 0.6, 0.6], 4),  # the second cycle brought nothing
        ([0.5, 0.6, 0.6, 0.7, 0.6, 0.6], 6),  # the third is tried, since the second helped
        ([0.5, 0.4, 0.4, 0.4, 0.4, 0.4], 4),
    ],
)
def test_cycles_end_when_val_stops_improving(
    splits, make_config, tmp_path, monkeypatch, scores, epochs
):
    left = list(scores)
    monkeypatch.setattr(
        "vptkit.tune.phases.phase_trainer.top1_and_loss",
        lambda *_: (left.pop(0), 1.0) if left else (0.0, 1.0),
    )
    config = make_config(
        head_init="zero",
        select="top1",
        method="ln",
        cycles=3,
        head_epochs=1,
        ln_epochs=1,
        augment="crop",
    )
    result = tune(splits, tmp_path / "a.safetensors", config)
    assert [record["epoch"] for record in records(result)] == list(range(1, epochs + 1))


@pytest.mark.slow
@pytest.mark.parametrize("augment", ["flip", "crop"])  # features once, and images anew
def test_a_killed_run_resumes_to_the_same_bytes_in_any_phase(
    splits, make_config, tmp_path, augment
):
    settings = {
        **CYCLIC,
        "method": "ln+lora+vpt",
        "rescale": "gamma",
        "refit_epochs": 1,
        "name": "x",
    }
    config = make_config(**settings, augment=augment, batch_size=9, dropout=0.2)
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    epochs = len(records(whole)) - 1  # the first is the probe
    assert epochs > 4  # a second cycle
    refitting = epochs * 24 + 1
    for after in (24 + 5, 2 * 24 + 1, 3 * 24 + 20, 4 * 24 + 3, refitting):
        output = tmp_path / f"{after}.safetensors"
        with pytest.raises(KeyboardInterrupt):
            tune(splits, output, config, progress=Stop(after))
        assert not output.exists()
        result = tune(splits, output, config, resume=True)
        assert output.read_bytes() == whole.adapter.read_bytes(), after
        assert result.metrics.read_bytes() == whole.metrics.read_bytes(), after


@pytest.mark.long
def test_sigkill_in_a_phase(splits, weights, make_config, tmp_path):
    """In a second cycle; that any other place does as well, the tests above say without a child."""
    config = make_config(**CYCLIC, name="x")
    settings = {
        **without_idle(config.to_json()),
        "weights": str(weights),
        "name": "x",
        "device": "cpu",
    }
    script = KILLED.replace("left = 30", "left = 110")
    assert_goes_on_after_sigkill(script, splits, config, settings, tmp_path)


def test_each_epoch_in_a_process_of_its_own(splits, make_config, tmp_path):
    """Every boundary of epochs and phases is a place to go on from."""
    config = make_config(**CYCLIC, name="x")
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    output = tmp_path / "b.safetensors"
    for _ in range(20):
        try:
            tune(splits, output, config, resume=True, progress=Stop(25))
        except KeyboardInterrupt:
            continue
        break
    assert output.read_bytes() == whole.adapter.read_bytes()
