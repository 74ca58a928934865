"""The pure parts of `evidence.py`: its cells, their settings, what is left out, the statistics."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.evidence import Chooser, report, seconds_of
from tests.benchmarks.evidence_cells import (
    BACKBONES,
    METHODS,
    RECIPES,
    SETS,
    Cell,
    grid,
    settings_of,
    settings_table,
)
from tests.benchmarks.evidence_plot import plot, plot_lines
from tests.benchmarks.evidence_records import (
    Records,
    append_record,
    at_chance,
    expected_seconds,
    read_records,
    right,
)
from tests.benchmarks.evidence_run import few_images
from tests.benchmarks.evidence_statistics import (
    clustered_interval,
    covers_zero,
    image_interval,
    mcnemar,
)
from vptkit.tune.data.splits import load_splits

EVERY = {
    "seeds": [0, 1],
    "backbones": list(BACKBONES),
    "recipes": list(RECIPES),
    "shots": [0, 10, 2],
    "methods": list(METHODS),
    "sets": list(SETS),
    "epochs": 20,
}
CELL = Cell("vptkit", "vit-ti", "flowers5", 0, "LN", 0)


def row(cell: Cell, right_share: float = 0.8, **more):
    """A record: 20 images of each class in test, the first of them answered right."""
    classes, each = SETS[cell.data], 20
    good = round(right_share * each)
    answers = [c if i < good else (c + 1) % classes for c in range(classes) for i in range(each)]
    drawings = cell.data in ("photo2sketch5", "breakhis100x")
    return {
        **asdict(cell),
        "seconds": 60.0,
        "trained": 9600,
        "best_epoch": 3,
        "device": "cpu",
        "val_top1": 0.8,
        "val_loss": 0.5,
        "shift": {"total": 2.5},
        "test_top1": good / each,
        "ood_top1": 0.4 if drawings else None,
        "curve": [[0, 0.5, 1.0], [1, 0.7, 0.9], [2, right_share, 0.8]],
        "answers": {"test": answers},
        "truth": {"test": [each] * classes},
        "line": {f"{a:g}": [0.8, 0.5, 0.7 + 0.1 * a, 0.4 - 0.1 * a] for a in (0.0, 0.5, 1.0)},
        **more,
    }


def test_seeds_come_last_and_rows_whole():
    cells = list(grid(**EVERY))
    assert len(cells) == len(set(cells)) == len({cell.name for cell in cells})
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    first = [cell.method for cell in cells[: 5 * len(SETS)]]
    wanted = ("default", "linear", "LN", "VPT-deep", "BPT-deep bilinear")
    assert first == [name for name in wanted for _ in SETS]
    assert {cell.backbone for cell in cells[:100]} == {"vit-ti"}
    of_one = [cell.shots for cell in cells if cell.backbone == "vit-s" and cell.method == "LN"]
    assert [shots for shots, _ in itertools.groupby(of_one[:12])] == [0, 10, 2]


def test_what_cannot_be_is_left_out():
    cells = list(grid(**EVERY))
    papers = {cell.method for cell in cells if cell.recipe == "papers"}
    assert papers == set(METHODS) - {"default", "auto", "linear", "full fine-tuning"}
    assert {cell.shots for cell in cells if "λ" in cell.method} == {0}  # it needs val


def test_every_cell_has_settings():
    cells = [*grid(**EVERY), replace(CELL, epochs=100)]
    for cell in cells:
        config = settings_of(cell, Path("shared"), Path("vit_b.safetensors"), "cpu")
        assert (config.seed, config.epochs, config.device) == (cell.seed, cell.epochs, "cpu")
        assert config.starts_from_probe == (cell.recipe == "vptkit")
        assert config.cycles == (3 if "cyclic" in cell.method else 0)
        assert (config.rescale != "none") == ("λ" in cell.method)
    with pytest.raises(ValueError, match="--weights"):
        settings_of(replace(CELL, backbone="vit-b"), Path("shared"))


def test_the_products_defaults_are_not_touched():
    config = settings_of(replace(CELL, method="VPT-deep"), Path("shared"))
    usual = settings_of(replace(CELL, method="default"), Path("shared"))
    for name in ("lr", "lr_head", "wd", "wd_head", "batch_size", "select", "augment", "clip"):
        assert (
            getattr(config, name)
            == getattr(usual, name)
            == type(config)(backbone="x").__getattribute__(name)
        )
    assert usual.prompts == type(usual)(backbone="x").prompts


def test_published_rates_are_those_of_32_images():
    papers = replace(CELL, recipe="papers", method="BPT-deep bilinear")
    whole, few = (settings_of(replace(papers, shots=n), Path("shared")) for n in (0, 10))
    assert (whole.lr, whole.lr_head, whole.wd, whole.wd_head) == (5e-2, 5e-2, 5e-3, 0.5)
    assert (whole.b_init, whole.tune_b_last, whole.augment, whole.clip) == ("whiten", 4, "crop", 0)
    assert few.batch_size == replace(few, batch_size=None).batch_of(50) == 8
    assert few.lr == pytest.approx(5e-2 * 8 / 32)
    shallow = settings_of(replace(papers, method="BPT-shallow"), Path("shared"))
    assert shallow.b_init == "random"


def test_the_settings_are_told():
    text = settings_table(20)
    assert all(f"| {method} |" in text for method in METHODS)
    assert "SGD" in text


def test_few_images_have_no_val(tmp_path):
    data = tmp_path / "things"
    for split, count in (("train", 6), ("val", 2), ("test", 3), ("ood", 1)):
        for label in ("a", "b"):
            for i in range(count):
                path = data / split / label / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(f"{split}{label}{i}".encode())
    found = [few_images(data, shots, 0, tmp_path / "few") for shots in (2, 4, 4)]
    names = [{str(p.relative_to(f)) for p in f.rglob("*.png")} for f in found]
    assert [len(n) for n in names] == [2 * (2 + 3 + 1), 2 * (4 + 3 + 1), 2 * (4 + 3 + 1)]
    assert names[0] < names[1]
    assert not any(path.is_symlink() for path in found[0].rglob("*"))
    labels, splits = load_splits(found[0], 0, 0.15, 0.15)
    assert (labels, sorted(splits), len(splits["train"].images)) == (
        ("a", "b"),
        ["ood", "test", "train"],
        4,
    )
    other = few_images(data, 2, 1, tmp_path / "few")
    assert {p.name for p in other.rglob("train/*/*")} != {
        p.name for p in found[0].rglob("train/*/*")
    }
    with pytest.raises(ValueError, match="7 were asked for"):
        few_images(data, 7, 0, tmp_path / "few")
    assert sorted(p.name for p in (tmp_path / "few").iterdir() if p.name[0] != ".") == [
        *("things-2-0", "things-2-1", "things-4-0")
    ]


def test_records_survive_a_kill(tmp_path):
    path = tmp_path / "x.jsonl"
    append_record(path, row(CELL))
    with path.open("a") as file:
        file.write('{"recipe": "vptkit", "back')
    append_record(path, row(replace(CELL, seed=1)))
    append_record(path, row(CELL, 0.9))
    assert [(r["seed"], r["test_top1"]) for r in read_records(path)] == [(0, 0.9), (1, 0.8)]
    path.write_text(json.dumps({"backbone": "vit-ti", "data": "flowers5"}))  # of another grid
    assert read_records(path) == []


def test_the_budget_starts_nothing_that_ends_later(tmp_path):
    path, now = tmp_path / "x.jsonl", [0.0]
    cells = [replace(CELL, seed=seed, method=m) for seed in (0, 1) for m in ("LN", "linear")]
    append_record(path, row(cells[0], seconds=100.0))
    append_record(path, row(cells[1], seconds=10.0))
    chooser = Chooser(cells, path, "cpu", 60, lambda: now[0])
    assert chooser.next() == cells[3]  # seed 1 of LN would take 100 s
    assert (chooser.next(), chooser.left_out) == (None, 1)
    late = Chooser(cells, path, "cpu", 60, lambda: now[0])
    now[0] = 60
    assert (late.next(), late.left_out) == (None, 2)
    assert Chooser(cells, path, "cpu").next() == cells[2]
    fresh = Chooser([replace(CELL, backbone="vit-s")], path, "cpu", 60, lambda: now[0])
    assert fresh.next() is not None  # nothing is known of it
    assert expected_seconds(cells[2], read_records(path), "cuda") is None
    assert [seconds_of(text) for text in ("90s", "10m", "0.5h")] == [90, 600, 1800]


def test_intervals():
    assert clustered_interval([0.1, 0.2], ["a", "a"]) is None
    low, high = clustered_interval([0.1, 0.1, 0.3], ["a", "a", "b"])
    assert (low, high) == pytest.approx((0.1, 0.3))
    many = np.random.default_rng(0).normal(0.05, 0.1, 400)
    low, high = clustered_interval(many, list(range(400)))
    assert many.mean() - low == pytest.approx(1.96 * many.std() / 20, rel=0.1)
    assert not covers_zero((low, high))
    assert covers_zero((-0.1, 0.1))
    gains = np.array([[1, 0, 0, -1] * 25, [1, 1, 0, -1] * 25], dtype=float)
    low, high = image_interval(gains)
    assert low < gains.mean() < high


def test_mcnemar_is_exact():
    ours = np.array([True] * 9 + [False] + [True] * 20)
    theirs = np.array([False] * 9 + [True] + [True] * 20)
    assert mcnemar(ours, theirs) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(ours, ours) == 1


def test_chance_is_marked():
    assert at_chance(row(CELL, 0.2))
    assert not at_chance(row(CELL, 0.3))
    two = row(replace(CELL, data="breakhis100x"), 0.6, truth={"test": [62, 38]})
    assert at_chance(two)  # the larger class has 62
    assert right(row(CELL, 0.25)).mean() == pytest.approx(0.25)


def made_up(seeds=(0, 1), epochs=20, **more):
    """Records in which LN is ahead of all others by ten points, and VPT-shallow at chance."""
    share = {"LN": 0.9, "VPT-shallow": 0.2, "default": 0.85, "linear": 0.7}
    words = {**EVERY, "seeds": seeds, "backbones": ["vit-ti", "vit-s"], "epochs": epochs, **more}
    return [row(cell, share.get(cell.method, 0.8)) for cell in grid(**words)]


@pytest.mark.slow
def test_a_report_says_what_the_records_say():
    text = report([*made_up(), {**asdict(replace(CELL, seed=7)), "failed": "no finite loss"}])
    lines = text.splitlines()
    assert "| LN − linear | vptkit | 48 (8) | +20.0 | +20.0 .. +20.0 | 48 / 0 |" in text
    covered = next(line for line in lines if line.startswith("| LN+BPT − LN | vptkit"))
    assert covered.endswith("lower |")
    same = next(line for line in lines if line.startswith("| LN: vptkit − papers"))
    assert same.endswith("interval covers 0 |")
    assert "| linear, flowers5: test ≥ 86 | 70.0 ± 0.0 (2 seeds) | **missed** |" in text
    assert (
        "mean of four sets ≥ the best single method's − 0.5 | 85.0; LN 90.0 | **missed** |" in text
    )
    assert "came to no end" in text
    assert "no finite loss" in text
    row_of = next(line for line in lines if line.startswith("| VPT-shallow | vptkit"))
    assert "20.0 ± 0.0†" in row_of
    assert "runs at chance" in text


def test_nothing_run_is_no_bar_met():
    text = report([row(CELL)])
    assert text.count("not run") == 12
    assert "| LN, flowers5: test ≥ 87.5 | 80.0 (1 seed) | **missed** |" in text


@pytest.mark.slow
def test_a_hundred_epochs_are_compared_with_vpt():
    text = report(made_up(epochs=100, shots=[0], methods=["LN", "VPT-deep"]))
    line = next(
        one
        for one in text.splitlines()
        if one.startswith("| vptkit | vit-ti, flowers5, all images | LN |")
    )
    assert "| 2 | 2 of 2 | +10.0 | +10.0 |" in line
    assert "**Bars**" not in text


@pytest.mark.long
def test_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    few = {"backbones": ["vit-ti"], "shots": [0], "methods": ["LN", "VPT-deep"]}
    records = Records(made_up(**few), 20)
    plot(records, tmp_path / "a.png")
    plot_lines(records, tmp_path / "b.png")
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("a.png", "b.png"))
