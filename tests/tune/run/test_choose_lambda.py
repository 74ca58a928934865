"""Whole runs that tune LayerNorms: the shift, λ, what is written."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from tests.support.tuning_runs import CYCLIC, names  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.backbone.reference import reference_logits  # noqa: E402
from vptkit.tune.methods.lambda_search import GRID, LambdaPoint  # noqa: E402
from vptkit.tune.run import choose_lambda as rescale_module  # noqa: E402


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "ln"},
        {"method": "ln", "augment": "crop", "rescale": "gamma"},
        {**CYCLIC, "rescale": "both", "refit_epochs": 2},
        {**CYCLIC, "augment": "crop", "cycles": 1},
        {"method": "ln+bpt", "rescale": "beta"},
        {**CYCLIC, "method": "ln+vpt"},
        {"method": "ln+vpt", "insert": "shallow"},
        {"method": "ln+bpt", "form": "fwhiten"},
    ],
    ids=lambda s: "-".join(map(str, s.values())),
)
def test_end_to_end(splits, weights, make_config, tmp_path, settings):
    result = tune(splits, tmp_path / "a.safetensors", make_config(**settings))
    adapter = read_adapter(result.adapter)
    assert adapter.method == settings["method"]
    prompted = settings["method"] != "ln"
    assert adapter.insert == (settings.get("insert", "deep") if prompted else "none")
    assert adapter.prompt_length == (3 if prompted else 0)
    assert len(adapter.layer_norms()) == 5 * 2

    images, logits = adapter.golden()
    again = reference_logits(result.adapter, weights, images)
    np.testing.assert_allclose(again, logits, rtol=1e-5, atol=1e-5 * np.abs(logits).max())

    found = result.layer_norms
    assert (found["layers"], found["numbers"]) == (5, 5 * 2 * 32)
    assert found["shift"]["total"] == pytest.approx(
        found["shift"]["gamma"] + found["shift"]["beta"]
    )
    rescaled = "rescale" in settings
    assert (found["rescale"] is not None) == rescaled
    assert adapter.train["layer_norms"] == found == result.to_json()["layer_norms"]
    json.dumps(result.to_json(), allow_nan=False)
    assert result.trainable_prompts >= 5 * 2 * 32
    assert names(tmp_path) == {"a.safetensors", "a.metrics.jsonl", "a.html"}


def test_the_reported_accuracy_is_that_of_the_rescaled_adapter(
    splits, weights, make_config, tmp_path, monkeypatch
):
    """Also where λ is far from 1, and after the head was trained again behind it."""
    from vptkit.tune.data.dataset import DataSet
    from vptkit.tune.data.splits import load_splits

    monkeypatch.setattr(rescale_module, "best_lambda", lambda trials: trials[-1])
    for refit in (0, 3):
        config = make_config(method="ln", epochs=3, rescale="both", refit_epochs=refit, lr_ln=3e-2)
        result = tune(splits, tmp_path / f"{refit}.safetensors", config)
        adapter = read_adapter(result.adapter)
        assert adapter.train["layer_norms"]["rescale"]["lambda"] == 2.0
        _, found = load_splits(splits, 0, 0.15, 0.15)
        for name, reported in (("val", result.val_top1), ("test", result.test_top1)):
            images, targets = next(DataSet(found[name], adapter.preprocess).evaluation_batches(100))
            logits = reference_logits(result.adapter, weights, images)
            assert (logits.argmax(1) == targets).mean() == pytest.approx(reported)
        assert adapter.train["val_top1"] == result.val_top1


def test_the_shift_is_that_of_the_file(splits, make_vit, make_config, tmp_path):
    result = tune(splits, tmp_path / "a.safetensors", make_config(method="ln"))
    start = make_vit().state_dict()
    tuned = read_adapter(result.adapter).layer_norms()
    shift = result.layer_norms["shift"]
    for layer in shift["layers"]:
        for key, part in (("gamma", "weight"), ("beta", "bias")):
            name = f"{layer['name']}.{part}"
            moved = np.linalg.norm(tuned[name].astype(float) - start[name].numpy())
            assert layer[key] == pytest.approx(moved, rel=1e-6)
            assert layer[key] > 0
    assert shift["gamma"] == pytest.approx(sum(layer["gamma"] for layer in shift["layers"]))


# ---- λ ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["gamma", "beta", "both"])
def test_one_is_plain_tuning(splits, make_config, tmp_path, monkeypatch, what):
    plain = tune(splits, tmp_path / "p.safetensors", make_config(method="ln"))
    kept = [
        LambdaPoint(0.5, 0.1, 1.0, lost=8),
        LambdaPoint(1.0, 0.9, 1.0),
        LambdaPoint(2.0, 0.2, 1.0, lost=7),
    ]
    monkeypatch.setattr(
        rescale_module, "search_lambda", lambda score: [score(t.factor) and t for t in kept]
    )
    one = tune(splits, tmp_path / "o.safetensors", make_config(method="ln", rescale=what))
    first, second = (read_adapter(r.adapter).tensors for r in (plain, one))
    assert set(first) == set(second)
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert one.layer_norms["shift"] == plain.layer_norms["shift"]


def test_the_file_holds_the_scaled_norms(splits, make_vit, make_config, tmp_path, monkeypatch):
    plain = tune(splits, tmp_path / "p.safetensors", make_config(method="ln"))
    monkeypatch.setattr(rescale_module, "best_lambda", lambda trials: trials[-1])
    result = tune(splits, tmp_path / "g.safetensors", make_config(method="ln", rescale="gamma"))
    assert result.layer_norms["shift"] == plain.layer_norms["shift"]  # as learned, before λ
    first, second = (read_adapter(r.adapter).layer_norms() for r in (plain, result))
    for name, value in make_vit().state_dict().items():
        if name in first:
            factor = 2.0 if name.endswith("weight") else 1.0
            start = value.numpy().astype(float)
            expected = start + factor * (first[name].astype(float) - start)
            np.testing.assert_allclose(second[name], expected, rtol=1e-6, atol=1e-7)


def test_only_val_chooses(splits, make_folders, make_config, tmp_path, monkeypatch):
    """Val likes 1.33 best, test and ood the largest; they are asked only when all is decided."""
    shutil.copytree(splits, tmp_path / "d")
    make_folders(tmp_path / "d" / "ood", 2)
    factors, asked = [1.0], []
    real = rescale_module.scaled

    def noted(norms, learned, factor, what):
        factors.append(factor)
        real(norms, learned, factor, what)

    def scripted(model, data, batch_size):
        split = data.split.images[0].parts[-3]
        asked.append(split)
        share = 1 - abs(factors[-1] - 1.33) if split == "val" else factors[-1] / 2
        return np.arange(1000) < 1000 * share, 1.0

    monkeypatch.setattr(rescale_module, "scaled", noted)
    monkeypatch.setattr(rescale_module, "answers", scripted)
    config = make_config(method="ln", rescale="both", epochs=1)
    result = tune(tmp_path / "d", tmp_path / "a.safetensors", config)
    rescale = result.layer_norms["rescale"]
    assert rescale["lambda"] == pytest.approx(1.33, abs=0.05)
    assert factors[-1] == rescale["lambda"]  # with that the model is left
    assert "val" not in asked[asked.index("test") :]
    outside = {r["lambda"]: r["test_top1"] for r in rescale["curve"] if "test_top1" in r}
    assert set(outside) == {*GRID, rescale["lambda"]} != set(GRID)
    for factor, top1 in outside.items():
        assert top1 == (np.arange(1000) < 1000 * factor / 2).mean()


@pytest.mark.usefixtures("pictures")
def test_ood_is_reported_along_the_grid(splits, make_folders, make_config, tmp_path):
    shutil.copytree(splits, tmp_path / "d")
    make_folders(tmp_path / "d" / "ood", 3, seed=9)
    config = make_config(method="ln", rescale="gamma")
    with_ood = tune(tmp_path / "d", tmp_path / "a.safetensors", config)
    without = tune(splits, tmp_path / "b.safetensors", config)
    assert without.ood_top1 is None
    curve = with_ood.layer_norms["rescale"]["curve"]
    chosen = with_ood.layer_norms["rescale"]["lambda"]
    row = next(row for row in curve if row["lambda"] == chosen)
    assert (row["test_top1"], row["ood_top1"]) == (with_ood.test_top1, with_ood.ood_top1)
    assert sum("ood_top1" in row for row in curve) >= 8
    assert "In (ID) and out of distribution (OOD)" in with_ood.page.read_text()
    assert "OOD" not in without.page.read_text()
    one, other = (read_adapter(r.adapter) for r in (with_ood, without))
    assert one.train["data"] == other.train["data"]  # ood decides nothing
    assert all(np.array_equal(v, other.tensors[k]) for k, v in one.tensors.items())
    blind = tune(tmp_path / "d", tmp_path / "c.safetensors", config, test=False)
    assert (blind.test_top1, blind.ood_top1) == (None, None)
    assert not any("ood_top1" in row for row in blind.layer_norms["rescale"]["curve"])
