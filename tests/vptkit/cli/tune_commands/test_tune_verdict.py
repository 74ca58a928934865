from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

from vptkit.cli.tune_commands.tune_verdict import numbers, shots_verdict, tune_verdict
from vptkit.tune.config import config_from_mapping
from vptkit.tune.run.few_shot_series import ShotsResult
from vptkit.tune.run.run_result import TuneResult

CONFIG = config_from_mapping({"backbone": "vit", "method": "ln", "weights": "my w.safetensors"})
CLASSES = ("daisy", "rose", "tulip")


def _result(folder: Path, **more: object) -> TuneResult:
    for name in ("f.safetensors", "f.metrics.jsonl", "f.html"):
        (folder / name).write_bytes(b"x" * 1200)
    given = {
        "trainable": 10,
        "trainable_prompts": 5,
        "best_epoch": 7,
        "val_top1": 0.8,
        "test_top1": 0.868,
        "seconds": 1.0,
        "device": "cpu",
        "images": {
            "train": dict.fromkeys(CLASSES, 10),
            "val": dict.fromkeys(CLASSES, 10),
            "test": dict(zip(CLASSES, (100, 100, 50), strict=True)),
        },
        "by_class": dict(zip(CLASSES, (10, 6, 8), strict=True)),
    }
    files = {"adapter": "f.safetensors", "metrics": "f.metrics.jsonl", "page": "f.html"}
    paths = {key: folder / name for key, name in files.items()}
    return TuneResult(**{**given, **paths, **more})


def test_accuracy_files_and_the_next_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = tune_verdict(_result(Path()), CONFIG).splitlines()
    assert lines == [
        "test 86.8 % (217 of 250; 95 % interval 82.0 to 90.4 %), val 80.0 %, best epoch 7",
        "weakest classes by val: rose 60.0 %",
        "wrote f.safetensors (1.2 kB), f.metrics.jsonl, f.html",
        "next: vptkit export f.safetensors --weights 'my w.safetensors' -o f.vptk",
    ]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"test_top1": None}, "val 80.0 % (24 of 30; 95 % interval 62.7 to 90.5 %), best epoch 7"),
        (
            {"test_top1": None, "cross_validation": {"folds": 5, "joined": 0}},
            "5-fold cross-validation of the training images 80.0 % (24 of 30; ",
        ),
        ({"test_top1": None, "val_top1": None}, "not judged: one image a class"),
        ({"best_epoch": 0}, ", the linear probe; no epoch was better"),
        ({"best_epoch": 0, "trainable_prompts": 0}, ", the linear probe"),
        ({"soup": [7, 5, 6]}, ", average of epochs 7, 5, 6"),
        ({"auto": {"kept": "ln"}}, ", kept ln, best epoch 7"),
        ({"line": {"alpha": 0.4}}, ", best epoch 7, α 0.4"),
    ],
    ids=str,
)
def test_what_judged_and_what_was_kept(tmp_path, more, told):
    assert told in tune_verdict(_result(tmp_path, **more), CONFIG).splitlines()[0]


def test_what_does_not_apply_is_no_row():
    document = {"val_top1": 0.5, "ood_top1": None, "trainable_prompts": 9, "images": {"a": 1}}
    assert numbers(document, prompted=False) == {"val_top1": 0.5}
    assert "trainable_prompts" in numbers(document, prompted=True)


def test_a_series_says_what_more_images_gain(tmp_path):
    runs = []
    for shots, top1 in ((1, 0.41), (10, 0.868)):
        path = tmp_path / f"f-{shots}shot.safetensors"
        path.touch()
        record = {"shots": shots, "method": "ln", "adapter": str(path), "best_epoch": 1}
        record |= {"val_top1": 0.5, "test_top1": top1, "ood_top1": None, "warnings": []}
        runs.append(record)
    lines = shots_verdict(ShotsResult(runs=tuple(runs)), CONFIG).splitlines()
    assert "test 41.0 % (1 shot) to 86.8 % (10 shots)" in lines
    assert lines[-1].startswith("next: vptkit export ")
    assert "f-10shot.safetensors" in lines[-1]
