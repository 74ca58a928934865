"""A place where nothing can be written is found before the work begins, whoever asks, also root.

/proc takes no new files from anybody; what it answers (ENOENT) is not what a read-only disk does
(EROFS), and the answer is the same.
"""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from tests.support.tuning_runs import Count  # noqa: E402
from vptkit.errors import OutputError  # noqa: E402
from vptkit.export.bundle.export_bundle import export  # noqa: E402
from vptkit.plot_text import require_plot  # noqa: E402
from vptkit.runtime.bulk.prediction_writers import saving  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.burstiness.analyze_burstiness import AnalyzeConfig, analyze  # noqa: E402
from vptkit.tune.idle_settings import without_idle  # noqa: E402
from vptkit.tune.importers.import_adapter import ImportConfig, import_adapter  # noqa: E402
from vptkit.tune.run.few_shot_series import tune_shots  # noqa: E402
from vptkit.tune.sweep import run_sweep  # noqa: E402
from vptkit.tune.sweep.search_space import sweep_from_mapping  # noqa: E402

PLACE = Path("/proc")
EXPECTED = r"/proc/x.*: cannot be written: "


def test_tune(splits, make_config):
    bar = Count()
    with pytest.raises(OutputError, match=EXPECTED):
        tune(splits, PLACE / "x.safetensors", make_config(), progress=bar)
    assert bar.done == 0


def test_a_series(splits, make_config):
    with pytest.raises(OutputError, match=EXPECTED):
        tune_shots(splits, PLACE / "x.safetensors", make_config(), [1, 2])


def test_a_sweep(splits, make_config):
    settings = {**without_idle(make_config().to_json()), "weights": str(make_config().weights)}
    del settings["lr"]
    document = {"data": str(splits), "space": {"lr": [1e-3, 1e-2]}, "tune": settings}
    plan = sweep_from_mapping(document)
    with pytest.raises(OutputError, match=EXPECTED):
        run_sweep.sweep(plan, PLACE / "x", runner=None)


def test_an_analysis(splits, make_config, monkeypatch):
    """Found before the passes over the images."""
    measured = []
    monkeypatch.setattr("vptkit.tune.burstiness.analyze_burstiness.measure", measured.append)
    config = make_config()
    keys = ("backbone", "backbone_args", "weights")
    chosen = AnalyzeConfig(**{key: getattr(config, key) for key in keys})
    with pytest.raises(OutputError, match=EXPECTED):
        analyze(splits, PLACE / "x", chosen)
    assert not measured


def test_an_import():
    """Found before the file is read and the backbone made: neither is there."""
    config = ImportConfig(layout="vpt", backbone="none of this name")
    with pytest.raises(OutputError, match=EXPECTED):
        import_adapter(Path("absent.pth"), PLACE / "x.safetensors", config)


def test_an_export(tiny_adapter):
    """Found before the weights are read: they are not there."""
    with pytest.raises(OutputError, match=EXPECTED):
        export(tiny_adapter, PLACE / "x.vptk", weights=Path("absent.safetensors"))


def test_predictions():
    with pytest.raises(OutputError, match=EXPECTED), saving(PLACE / "x.jsonl", top_k=1):
        pass


def test_a_plot():
    with pytest.raises(OutputError, match=EXPECTED):
        require_plot(PLACE / "x.png", force=False)
