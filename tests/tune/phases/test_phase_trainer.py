"""One phase: what moves in it, its batches, its schedule."""

from __future__ import annotations

from itertools import groupby

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")


from tests.support.tuning_runs import CYCLIC, records  # noqa: E402
from vptkit.images.preprocess import Preprocess  # noqa: E402
from vptkit.progress import SILENT  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.data.dataset import DataSet  # noqa: E402
from vptkit.tune.data.splits import load_splits  # noqa: E402
from vptkit.tune.phases.phase_plan import phases  # noqa: E402
from vptkit.tune.phases.phase_trainer import PhaseTrainer  # noqa: E402
from vptkit.tune.training.train_state import TrainState  # noqa: E402


def test_what_rests_in_a_phase_does_not_move(splits, make_config, tmp_path, monkeypatch):
    """Head phases move the head alone, the others norms and prompts alone."""
    from vptkit.tune.phases import phased_training

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
    config = make_config(**{**CYCLIC, "method": "ln+vpt"}, seed=1, head_init="zero")
    result = tune(splits, tmp_path / "a.safetensors", config)
    parts = [(record["cycle"], record["part"]) for record in records(result)]
    assert parts[:4] == [(1, "head"), (1, "head"), (1, "body"), (1, "body")]
    assert len(parts) > 4
    for (_, part), before, after in zip(parts[1:], seen, seen[1:], strict=False):
        moved = {key for key in before if not torch.equal(before[key], after[key])}
        assert moved == ({"head"} if part == "head" else {"norms", "prompts"})


def test_a_head_phase_ends_near_the_probe(splits, make_config, tmp_path):
    """From zero, over many small steps, on the same features: LP-LN begins with a linear probe."""
    config = make_config(
        method="ln",
        cycles=1,
        head_epochs=60,
        ln_epochs=1,
        lr_head=1e-2,
        wd_head=0.0,
        head_init="zero",
    )
    trained = records(tune(splits, tmp_path / "b.safetensors", config))[59]
    probe = records(tune(splits, tmp_path / "p.safetensors", make_config(method="linear")))[0]
    weakest = probe["probe"]["grid"][-1]
    assert trained["val_top1"] == weakest["val_top1"]
    assert weakest["train_loss"] < trained["train_loss"] < 0.05


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


@pytest.mark.parametrize(("epoch", "left"), [(0, 2 * 24 + 3 * 20), (1, 24 + 3 * 20), (3, 2 * 20)])
def test_images_that_are_left(make_config, splits, epoch, left):
    """Of 24 images a head phase shows all, the norms' leave out a last batch below half a batch."""
    config = make_config(method="ln", cycles=1, head_epochs=2, ln_epochs=3, batch_size=10)
    preprocess = Preprocess(
        input_size=(3, 32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), crop_pct=0.9
    )
    train = DataSet(load_splits(splits, 0, 0.15, 0.15)[1]["train"], preprocess)
    trainer = PhaseTrainer(
        tuned=None,
        sets={"train": train},
        config=config,
        state=TrainState(identity={}, epoch=epoch),
        progress=SILENT,
    )
    assert trainer.images_left(phases(config)) == left
