"""Whole runs that choose a point of the line between start and end."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from tests.support.tuning_runs import CYCLIC, names  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.progress import SILENT  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.backbone.reference import reference_logits  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import spec_from_model  # noqa: E402
from vptkit.tune.backbone.timm_backbone import preprocess_of  # noqa: E402
from vptkit.tune.data.dataset import DataSet  # noqa: E402
from vptkit.tune.data.splits import load_splits  # noqa: E402
from vptkit.tune.idle_settings import without_idle  # noqa: E402
from vptkit.tune.methods.layer_norms import scaled  # noqa: E402
from vptkit.tune.methods.straight_line import GRID, LinePoint  # noqa: E402
from vptkit.tune.methods.tuned_model import Tuned, wants_whitening  # noqa: E402
from vptkit.tune.phases import choose_line as line_module  # noqa: E402
from vptkit.tune.phases.choose_line import choose_line, outside_row, outside_top1  # noqa: E402

FAST = {
    "lr": 0.05,
    "lr_ln": 1e-2,
    "lr_lora": 1e-2,
    "lr_head": 1e-2,
}  # so that something moves in two epochs
METHODS = [
    {"method": "vpt"},
    {"method": "ln+bpt", "form": "twhiten"},
    {"method": "ln", "head_init": "zero", "precision": "bf16"},
    {"method": "bpt", "form": "bilinear", "b_init": "whiten", "pool": "token+avg"},
    {"method": "bpt", "form": "fwhiten", "insert": "shallow"},
    {"method": "ln+vpt", "insert": "shallow", "calibrate": "none"},
    {**CYCLIC, "refit_epochs": 2},
    {"method": "vpt", "augment": "crop", "select": "last"},
    {"method": "lora", "calibrate": "none"},
]


@pytest.mark.slow
@pytest.mark.parametrize("settings", METHODS, ids=lambda s: "-".join(map(str, s.values())))
def test_end_to_end(splits, weights, make_config, tmp_path, settings):
    config = make_config(**without_idle({**FAST, "select": "last", **settings, "rescale": "all"}))
    result = tune(splits, tmp_path / "a.safetensors", config)
    adapter = read_adapter(result.adapter)
    assert adapter.train["line"] == result.line == result.to_json()["line"]
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["line"] == result.line
    assert result.to_text()["line"] == {"alpha": result.line["alpha"]}
    curve = {row["alpha"]: row for row in result.line["curve"]}
    assert tuple(curve) == GRID
    chosen = curve[result.line["alpha"]]
    assert chosen["val_loss"] == min(row["val_loss"] for row in curve.values())
    assert len({row["val_loss"] for row in curve.values()}) > 5  # it is a line, not a point
    if not config.refit_epochs:
        assert chosen["val_top1"] == result.val_top1
    norms = "ln" in settings["method"]
    assert names(tmp_path) == {"a.safetensors", "a.metrics.jsonl", "a.html"}
    if norms:
        assert result.layer_norms["rescale"] is None

    images, targets = val_images(splits, adapter)
    logits = reference_logits(result.adapter, weights, images)
    assert (logits.argmax(1) == targets).mean() == pytest.approx(result.val_top1, abs=0.01)


def val_images(splits, adapter):
    found = load_splits(splits, 0, 0.15, 0.15)[1]
    return next(DataSet(found["val"], adapter.preprocess).evaluation_batches(100))


# ---- by hand ------------------------------------------------------------------------------------


@pytest.fixture
def make_ends(make_vit, make_config):
    """A function: (a model at its end, the parameters of its start, the settings)."""

    def make(method="ln+bpt", **settings):
        model, config = make_vit(), make_config(method=method, rescale="all", **settings)
        spec = spec_from_model(model)
        matrices = [torch.eye(spec.width)] * spec.depth if wants_whitening(config) else None
        tuned = Tuned(model, spec, config, 3, matrices)
        start = {name: value.clone() for name, value in tuned.state_dict().items()}
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in tuned.parameters():
                if parameter.requires_grad:
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.add_(0.1 * noise)
        return tuned, start, config

    return make


@pytest.fixture
def sets(splits, make_vit):
    preprocess = preprocess_of(make_vit())
    found = load_splits(splits, 0, 0.15, 0.15)[1]
    return {name: DataSet(split, preprocess) for name, split in found.items()}


def prefer(monkeypatch, alpha):
    def best(points):
        return next(point for point in points if point.alpha == alpha)

    monkeypatch.setattr(line_module, "best_point", best)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 1.5])
def test_all_that_is_learned_is_left_on_the_line(make_ends, sets, monkeypatch, alpha):
    """Both factors of the prompts, the norms as λ on γ and β has them, and the head."""
    tuned, start, config = make_ends(form="bilinear", tune_b_last=1)
    end = {name: value.clone() for name, value in tuned.state_dict().items()}
    learned, norms = tuned.layer_norms.learned(), tuned.layer_norms
    prefer(monkeypatch, alpha)
    line = choose_line(tuned, start, sets, config, SILENT)
    assert line.chosen.alpha == alpha
    found = tuned.state_dict()
    for name, value in end.items():
        between = start[name].double() + alpha * (value.double() - start[name].double())
        torch.testing.assert_close(found[name].double(), between, rtol=1e-6, atol=1e-7)
        if alpha in (0, 1):
            assert torch.equal(found[name], (start, end)[int(alpha)][name])
    moved = {name for name in end if not torch.equal(start[name], end[name])}
    assert {"prompts.a.0", "prompts.a.1", "prompts.b.1", "head.weight", "head.bias"} < moved
    assert "prompts.b.0" not in moved  # frozen: only the last block's B learns here
    on_the_line = norms.learned()
    scaled(norms, learned, alpha, "both")
    assert all(map(torch.equal, on_the_line, norms.learned()))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 1.5])
def test_the_products_of_lora_are_left_on_the_line(make_ends, sets, monkeypatch, alpha):
    """Not its factors, whose product would bend: what is added at α is α times what is at the end."""
    tuned, start, config = make_ends("lora", lora_targets="q,proj")
    assert not any(value.any() for name, value in start.items() if "lora.b" in name)
    ends = [linear.product() for linear in tuned.lora._linears.values()]
    prefer(monkeypatch, alpha)
    choose_line(tuned, start, sets, config, SILENT)
    for (a, b), linear in zip(ends, tuned.lora._linears.values(), strict=True):
        assert (b @ a).abs().max() > 1e-4
        torch.testing.assert_close(torch.matmul(*linear.product()[::-1]), alpha * (b @ a))


def test_only_val_chooses(make_ends, sets, monkeypatch):
    """Val likes α = 0.4, test and ood 1.5; those are asked only when all points have been judged."""
    tuned, start, config = make_ends()
    asked = []

    def judged(alpha, logits, truth):
        asked.append("val")
        return LinePoint(alpha, alpha, np.full(12, abs(alpha - 0.4)))

    def outside(model, data, batch_size):
        split = next(name for name, one in sets.items() if one is data)
        asked.append(split)
        distance = float((model.head.weight.detach() - start["head.weight"]).norm())
        return (distance if split == "test" else -distance), 0.0

    sets["ood"] = DataSet(sets["test"].split, sets["test"].preprocess)
    monkeypatch.setattr(line_module, "judged_point", judged)
    monkeypatch.setattr(line_module, "top1_and_loss", outside)
    record = choose_line(tuned, start, sets, config, SILENT).to_json()
    assert record["alpha"] == 0.4
    assert asked == ["val"] * len(GRID) + ["test", "ood"] * len(GRID)
    whole = next(row["test_top1"] for row in record["curve"] if row["alpha"] == 1)
    for row in record["curve"]:  # each measured at its own α
        assert row["test_top1"] == -row["ood_top1"] == pytest.approx(row["alpha"] * whole, rel=1e-5)
    left = float((tuned.head.weight.detach() - start["head.weight"]).norm())
    assert left == pytest.approx(0.4 * whole, rel=1e-5)


def test_points_that_are_not_finite_are_left_out(make_ends, sets):
    """Behind the end float32 overflows; what is finite is chosen from, and the record is JSON."""
    tuned, start, config = make_ends("vpt")
    with torch.no_grad():
        tuned.head.weight.fill_(3e38 / 1.2)
        start["head.weight"].zero_()
    record = choose_line(tuned, start, sets, config, SILENT).to_json()
    alphas = [row["alpha"] for row in record["curve"]]
    assert 0 in alphas
    assert 1.5 not in alphas
    assert tuned.head.weight.isfinite().all()
    json.dumps(record, allow_nan=False)


def test_a_training_that_ended_at_its_start(make_ends, sets):
    """Then there is no line: one point, and no picture of it."""
    tuned, start, config = make_ends("vpt")
    tuned.load_state_dict(start)
    line = choose_line(tuned, start, sets, config, SILENT)
    assert [point.alpha for point in line.points] == [0]
    assert line.to_json()["alpha"] == 0
    assert all(torch.equal(value, start[name]) for name, value in tuned.state_dict().items())


# ---- the start ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_start_is_the_probe_and_the_end_is_plain_tuning(
    splits, make_config, make_vit, tmp_path, monkeypatch, alpha
):
    settings = {
        "lr_ln": 1e-2,
        "lr_head": 1e-2,
        "method": "ln",
        "select": "last",
        "calibrate": "none",
        "name": "x",
    }
    prefer(monkeypatch, alpha)
    line = tune(splits, tmp_path / "a.safetensors", make_config(**settings, rescale="all"))
    assert line.line["alpha"] == alpha
    other = "linear" if alpha == 0 else "ln"
    config = make_config(**without_idle({**settings, "method": other}))
    plain = read_adapter(tune(splits, tmp_path / "b.safetensors", config).adapter)
    found = read_adapter(line.adapter)
    for name, value in plain.tensors.items():
        if not name.startswith("golden."):
            np.testing.assert_array_equal(found.tensors[name], value, err_msg=name)
    start = make_vit().state_dict()
    for name, value in found.layer_norms().items():
        assert np.array_equal(value, start[name].numpy()) == (alpha == 0), name


@pytest.mark.slow
def test_test_and_ood_along_it_are_noted_and_decide_nothing(
    splits, make_folders, make_config, tmp_path
):
    shutil.copytree(splits, tmp_path / "d")
    make_folders(tmp_path / "d" / "ood", 3, seed=9)
    config = make_config(
        lr=0.05, lr_head=1e-2, method="vpt", select="last", rescale="all", name="x"
    )
    seen = tune(tmp_path / "d", tmp_path / "a.safetensors", config)
    blind = tune(tmp_path / "d", tmp_path / "b.safetensors", config, test=False)
    row = next(row for row in seen.line["curve"] if row["alpha"] == seen.line["alpha"])
    assert (row["test_top1"], row["ood_top1"]) == (seen.test_top1, seen.ood_top1)
    assert all("ood_top1" in row for row in seen.line["curve"])
    assert not any("ood_top1" in row for row in blind.line["curve"])
    first, second = (read_adapter(r.adapter).tensors for r in (seen, blind))
    assert all(np.array_equal(value, second[name]) for name, value in first.items())


def test_outside_is_measured_only_where_both_splits_are():
    asked = []

    def measured(factor, split):
        asked.append((factor, split))
        return factor

    assert outside_top1(measured, [1.0], {"val": None, "test": None}) == {}
    assert asked == []
    both = {"test": None, "ood": None}
    assert outside_top1(measured, [1.0, 0.5, 1.0], both) == {0.5: (0.5, 0.5), 1.0: (1.0, 1.0)}
    assert outside_row({0.5: (0.1, 0.2)}, 0.5) == {"test_top1": 0.1, "ood_top1": 0.2}
    assert outside_row({0.5: (0.1, 0.2)}, 0.7) == {}
