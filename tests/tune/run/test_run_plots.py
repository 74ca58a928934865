"""Which pictures lie beside an adapter."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")


from tests.support.tuning_runs import names  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.run import run_plots  # noqa: E402
from vptkit.tune.run.run_plots import plot_run  # noqa: E402
from vptkit.tune.training.run_files import run_files  # noqa: E402
from vptkit.tune.training.train_state import TrainState  # noqa: E402


@pytest.mark.usefixtures("pictures")
def test_pictures_of_a_replaced_adapter_go(splits, make_config, tmp_path):
    output = tmp_path / "a.safetensors"
    tune(splits, output, make_config(method="ln", rescale="gamma", epochs=1))
    assert {"a.shift.png", "a.lambda.png"} < names(tmp_path)
    line = tune(splits, output, make_config(method="vpt", rescale="all", select="last"), force=True)
    assert [path.name for path in line.plots] == ["a.line.png"]
    assert not {"a.shift.png", "a.lambda.png"} & names(tmp_path)
    tune(splits, output, make_config(method="linear"), force=True)
    assert names(tmp_path) == {"a.safetensors", "a.metrics.jsonl", "a.curves.png"}


def test_a_line_of_one_point_is_not_drawn(tmp_path):
    """The training ended at its start."""
    row = {"alpha": 0.0, "val_top1": 0.5, "val_loss": 1.0, "val_loss_error": 0.0}
    files, record = run_files(tmp_path / "a.safetensors"), {"epoch": 0}
    state = TrainState({}, start=record)
    drawn = plot_run(state, None, files, "a", line={"alpha": 0.0, "curve": [row]})
    assert drawn == (files.curves, ())


def test_a_line_of_several_labels_is_of_map(tmp_path, monkeypatch):
    scores = []
    for name in ("plot_line", "plot_id_ood"):
        monkeypatch.setattr(
            run_plots.rescale_plots, name, lambda *_, score: scores.append(score), raising=True
        )
    monkeypatch.setattr(run_plots.learning_curves, "plot_curves", lambda *_: None)
    rows = [{"alpha": a, "val_top1": 0.5, "test_top1": 0.5, "ood_top1": 0.5} for a in (0.0, 1.0)]
    state = TrainState({}, start={"epoch": 0})
    files = run_files(tmp_path / "a.safetensors")
    plot_run(state, None, files, "a", line={"alpha": 0.0, "curve": rows}, several=True)
    assert scores == ["mAP", "mAP"]


@pytest.mark.usefixtures("pictures")
def test_without_matplotlib_old_pictures_go_all_the_same(tmp_path, monkeypatch):
    """They would be taken for the new adapter's."""
    monkeypatch.setattr(run_plots, "can_draw", lambda: False)
    (tmp_path / "a.curves.png").write_bytes(b"of another day")
    (tmp_path / "b.curves.png").write_bytes(b"of another adapter")
    files = run_files(tmp_path / "a.safetensors")
    assert plot_run(TrainState({}), None, files, "a") == (None, ())
    assert names(tmp_path) == {"b.curves.png"}
