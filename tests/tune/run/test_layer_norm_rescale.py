"""Whole runs that tune LayerNorms: phases, resuming, λ, the FSR proxy, what is written."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from itertools import groupby

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from tests.support.children import run_child  # noqa: E402
from tests.tune.run.test_tune_run import KILLED, Stop, names  # noqa: E402
from vptkit.errors import DataError, OutputError  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.backbone.reference import reference_logits  # noqa: E402
from vptkit.tune.methods.lambda_search import GRID, Trial  # noqa: E402
from vptkit.tune.run import layer_norm_rescale as settle_module  # noqa: E402

CYCLIC = {"method": "ln", "cycles": 2, "head_epochs": 2, "ln_epochs": 2}


def records(result) -> list[dict]:
    return [json.loads(line) for line in result.metrics.read_text().splitlines()]


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
    files = {"a.safetensors", "a.metrics.jsonl", "a.curves.png", "a.shift.png"}
    assert names(tmp_path) == files | ({"a.lambda.png"} if rescaled else set())
    assert {path.name for path in result.plots} == names(tmp_path) & {"a.shift.png", "a.lambda.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in result.plots)


@pytest.mark.usefixtures("pictures")
def test_pictures_of_a_replaced_adapter_go(splits, make_config, tmp_path):
    output = tmp_path / "a.safetensors"
    tune(splits, output, make_config(method="ln", rescale="gamma", epochs=1))
    assert {"a.shift.png", "a.lambda.png"} < names(tmp_path)
    tune(splits, output, make_config(method="linear", epochs=1), force=True)
    assert names(tmp_path) == {"a.safetensors", "a.metrics.jsonl", "a.curves.png"}


def test_the_reported_accuracy_is_that_of_the_rescaled_adapter(
    splits, weights, make_config, tmp_path, monkeypatch
):
    """Also where λ is far from 1, and after the head was trained again behind it."""
    from vptkit.tune.data.dataset import DataSet
    from vptkit.tune.data.splits import load_splits

    monkeypatch.setattr(settle_module, "best_trial", lambda trials: trials[-1])
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


# ---- phases -------------------------------------------------------------------------------------


def test_what_rests_in_a_phase_does_not_move(splits, make_config, tmp_path, monkeypatch):
    """Head phases move the head alone, the others norms and prompts alone."""
    from vptkit.tune.training import phased_training

    seen = []
    real = phased_training.save_checkpoint

    def noted(path, model, optimizer, state):
        seen.append(
            {
                "head": model.head.weight.detach().clone(),
                "norms": torch.cat(model.layer_norms.learned()),
                "prompts": torch.cat([p.detach().clone() for p in model.prompts.a]),
            }
        )
        real(path, model, optimizer, state)

    monkeypatch.setattr(phased_training, "save_checkpoint", noted)
    config = make_config(**{**CYCLIC, "method": "ln+vpt"}, seed=1)
    result = tune(splits, tmp_path / "a.safetensors", config)
    parts = [(record["cycle"], record["part"]) for record in records(result)]
    assert parts[:4] == [(1, "head"), (1, "head"), (1, "body"), (1, "body")]
    assert len(parts) > 4
    for (_, part), before, after in zip(parts[1:], seen, seen[1:], strict=False):
        moved = {key for key in before if not torch.equal(before[key], after[key])}
        assert moved == ({"head"} if part == "head" else {"norms", "prompts"})


def test_a_head_phase_is_a_linear_probe(splits, make_config, tmp_path):
    """The same features, steps and rates: LP-LN begins with what `linear` gives."""
    probe = tune(
        splits, tmp_path / "p.safetensors", make_config(method="linear", epochs=3, lr_head=1e-2)
    )
    config = make_config(method="ln", cycles=1, head_epochs=3, ln_epochs=1, lr_head=1e-2)
    both = tune(splits, tmp_path / "b.safetensors", config)
    keys = ("train_loss", "train_top1", "val_top1", "val_loss")
    for one, other in zip(records(probe), records(both), strict=False):
        assert [one[key] for key in keys] == [other[key] for key in keys]


@pytest.mark.parametrize(("size", "head", "body"), [(8, 3, 3), (9, 3, 3), (10, 3, 2)])
def test_each_phase_has_its_own_schedule(
    splits, make_config, tmp_path, monkeypatch, size, head, body
):
    """Of 24 images the head takes all; norms drop a last batch below half a batch."""
    from vptkit.tune.training import loop

    asked, real = [], loop.rate_at

    def noted(step, steps, warmup):
        asked.append((step, steps))
        return real(step, steps, warmup)

    monkeypatch.setattr(loop, "rate_at", noted)
    config = make_config(**{**CYCLIC, "cycles": 1}, batch_size=size)
    tune(splits, tmp_path / "a.safetensors", config)
    runs = [(step, steps) for steps in (2 * head, 2 * body) for step in range(steps)]
    assert [one for one, _ in groupby(asked)] == runs  # asked for each group of parameters


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
        "vptkit.tune.training.phased_training.evaluate",
        lambda *_: (left.pop(0), 1.0) if left else (0.0, 1.0),
    )
    config = make_config(method="ln", cycles=3, head_epochs=1, ln_epochs=1, augment="crop")
    result = tune(splits, tmp_path / "a.safetensors", config)
    assert [record["epoch"] for record in records(result)] == list(range(1, epochs + 1))


@pytest.mark.slow
@pytest.mark.parametrize("augment", ["flip", "crop"])  # features once, and images anew
def test_a_killed_run_resumes_to_the_same_bytes_in_any_phase(
    splits, make_config, tmp_path, augment
):
    settings = {**CYCLIC, "method": "ln+vpt", "rescale": "gamma", "refit_epochs": 1, "name": "x"}
    config = make_config(**settings, augment=augment, batch_size=9, dropout=0.2)
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    assert len(records(whole)) > 4  # a second cycle
    refitting = len(records(whole)) * 24 + 1
    for after in (24 + 5, 2 * 24 + 1, 3 * 24 + 20, 4 * 24 + 3, refitting):
        output = tmp_path / f"{after}.safetensors"
        with pytest.raises(KeyboardInterrupt):
            tune(splits, output, config, progress=Stop(after))
        assert not output.exists()
        result = tune(splits, output, config, resume=True)
        assert output.read_bytes() == whole.adapter.read_bytes(), after
        assert result.metrics.read_bytes() == whole.metrics.read_bytes(), after


@pytest.mark.slow
@pytest.mark.parametrize("images", [30, 60, 110])  # in a head phase, a norm phase, a second cycle
def test_sigkill_in_a_phase(splits, weights, make_config, tmp_path, images):
    config = make_config(**CYCLIC, name="x")
    settings = {**config.to_json(), "weights": str(weights), "name": "x", "device": "cpu"}
    output = tmp_path / "k.safetensors"
    script = KILLED.replace("left = 30", f"left = {images}")
    arguments = [str(splits), str(output), json.dumps(settings)]
    done = run_child([sys.executable, "-c", script, *arguments], check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not output.exists()
    resumed = tune(splits, output, config, resume=True)
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    assert resumed.adapter.read_bytes() == whole.adapter.read_bytes()
    assert resumed.metrics.read_bytes() == whole.metrics.read_bytes()


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


def test_a_checkpoint_of_an_older_vptkit(splits, make_config, tmp_path):
    """Settings that it did not know stood at their defaults."""
    from vptkit.formats.tensor_file import read_metadata, read_tensors, write_tensors

    config = make_config(method="vpt", name="x", epochs=3)
    whole = tune(splits, tmp_path / "whole.safetensors", config)
    output = tmp_path / "b.safetensors"
    with pytest.raises(KeyboardInterrupt):
        tune(splits, output, config, progress=Stop(30))
    path = tmp_path / "b.checkpoint.safetensors"
    document = json.loads(read_metadata(path, DataError)["vptkit"])
    for key in ("lr_ln", "cycles", "head_epochs", "ln_epochs", "rescale", "refit_epochs"):
        del document["identity"]["config"][key]
    tensors = {name: np.array(value) for name, value in read_tensors(path, DataError).items()}
    write_tensors(path, tensors, ("vptkit", json.dumps(document)))
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"config\.lr was 0\.005, is 0\.5"):
        tune(splits, output, make_config(method="vpt", name="x", epochs=3, lr=0.5), resume=True)
    assert path.read_bytes() == before
    tune(splits, output, config, resume=True)
    assert output.read_bytes() == whole.adapter.read_bytes()


# ---- λ ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["gamma", "beta", "both"])
def test_one_is_plain_tuning(splits, make_config, tmp_path, monkeypatch, what):
    plain = tune(splits, tmp_path / "p.safetensors", make_config(method="ln"))
    kept = [Trial(0.5, 0.1, 1.0, lost=8), Trial(1.0, 0.9, 1.0), Trial(2.0, 0.2, 1.0, lost=7)]
    monkeypatch.setattr(
        settle_module, "search_factor", lambda score: [score(t.factor) and t for t in kept]
    )
    one = tune(splits, tmp_path / "o.safetensors", make_config(method="ln", rescale=what))
    first, second = (read_adapter(r.adapter).tensors for r in (plain, one))
    assert set(first) == set(second)
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert one.layer_norms["shift"] == plain.layer_norms["shift"]


def test_the_file_holds_the_scaled_norms(splits, make_vit, make_config, tmp_path, monkeypatch):
    plain = tune(splits, tmp_path / "p.safetensors", make_config(method="ln"))
    monkeypatch.setattr(settle_module, "best_trial", lambda trials: trials[-1])
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
    real = settle_module.scaled

    def noted(norms, learned, factor, what):
        factors.append(factor)
        real(norms, learned, factor, what)

    def scripted(model, data, batch_size):
        split = data.split.images[0].parts[-3]
        asked.append(split)
        share = 1 - abs(factors[-1] - 1.33) if split == "val" else factors[-1] / 2
        return np.arange(1000) < 1000 * share, 1.0

    monkeypatch.setattr(settle_module, "scaled", noted)
    monkeypatch.setattr(settle_module, "answers", scripted)
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
    assert with_ood.plots[-1].name == "a.id-ood.png"
    assert with_ood.plots[-1].read_bytes().startswith(b"\x89PNG")
    one, other = (read_adapter(r.adapter) for r in (with_ood, without))
    assert one.train["data"] == other.train["data"]  # ood decides nothing
    assert all(np.array_equal(v, other.tensors[k]) for k, v in one.tensors.items())
    blind = tune(tmp_path / "d", tmp_path / "c.safetensors", config, test=False)
    assert (blind.test_top1, blind.ood_top1) == (None, None)
    assert not any("ood_top1" in row for row in blind.layer_norms["rescale"]["curve"])


def test_a_refit_is_kept_only_if_val_gains(splits, make_config, tmp_path, monkeypatch):
    from vptkit.tune.training import phased_training

    real = phased_training.evaluate
    for gain, changed in ((-0.5, False), (0.5, True)):
        with monkeypatch.context() as patch:
            patch.setattr(
                phased_training, "evaluate", lambda *a, g=gain: (real(*a)[0] - g, real(*a)[1])
            )
            config = make_config(method="ln", refit_epochs=2, lr_head=1e-4, name="x")
            refit = tune(splits, tmp_path / f"{gain}.safetensors", config)
        plain = tune(
            splits,
            tmp_path / f"{gain}p.safetensors",
            make_config(method="ln", lr_head=1e-4, name="x"),
        )
        heads = [read_adapter(r.adapter).tensors["head.weight"] for r in (refit, plain)]
        assert np.array_equal(*heads) != changed
        norms = [read_adapter(r.adapter).layer_norms() for r in (refit, plain)]
        assert all(np.array_equal(norms[0][k], norms[1][k]) for k in norms[0])


# ---- the FSR proxy ------------------------------------------------------------------------------


def test_the_proxy_is_a_ratio_of_shifts(splits, make_folders, make_config, tmp_path):
    full = tmp_path / "full"
    for seed, (name, count) in enumerate({"train": 16, "val": 4}.items(), 20):
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
            "vptkit.tune.run.tune_run._golden", lambda _, a, *__: {} if a.name != "x" else 1 / 0
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
