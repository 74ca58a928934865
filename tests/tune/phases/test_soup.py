"""The soup: which epochs are in it, what it holds, and that it survives a kill."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from tests.support.tuning_runs import Stop  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.phases import soup as soup_module  # noqa: E402
from vptkit.tune.phases.soup import average, make_soup  # noqa: E402
from vptkit.tune.training.loop import keep_if_best  # noqa: E402
from vptkit.tune.training.train_state import TrainState  # noqa: E402


class Numbers(torch.nn.Module):
    """A model of one number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor([value]))


def state_after(losses: list[float], config) -> TrainState:
    """Epoch k has the number k, and that loss on val."""
    state = TrainState({}, start={"epoch": 0, "val_top1": 0.5, "val_loss": losses[0]})
    keep_if_best(Numbers(0.0), config, state)
    for epoch, loss in enumerate(losses[1:], 1):
        state.epoch = epoch
        state.history.append({"epoch": epoch, "val_top1": 0.5, "val_loss": loss})
        keep_if_best(Numbers(float(epoch)), config, state)
    return state


@pytest.mark.parametrize(
    ("losses", "ranks"),
    [
        ([0.9, 0.5, 0.4, 0.6, 0.7], [2, 1, 3]),
        ([0.1, 0.5, 0.4], [0, 2, 1]),  # the probe is one, too
        ([0.5, 0.5, 0.5, 0.5], [0, 1, 2]),  # of equals the earlier
        ([0.5], [0]),
    ],
)
def test_the_three_best_are_kept_in_their_order(make_config, losses, ranks):
    state = state_after(losses, make_config(select="soup"))
    kept = [(state.best_epoch, state.best), *state.runners_up]
    assert [epoch for epoch, _ in kept] == ranks
    assert [found["value"].item() for _, found in kept] == ranks


def test_other_rules_keep_one(make_config):
    assert state_after([0.9, 0.5, 0.4], make_config(select="loss")).runners_up == []


@pytest.mark.parametrize(
    ("answers", "epochs", "value"),
    [([0.3, 0.2], [2, 1, 3], 2.0), ([0.5, 0.3], [2, 3], 2.5), ([0.5, 0.5], [2], 2.0)],
)
def test_an_epoch_joins_where_val_does_not_lose(make_config, monkeypatch, answers, epochs, value):
    config = make_config(select="soup")
    state, model, scripted = state_after([0.9, 0.5, 0.4, 0.6], config), Numbers(0.0), iter(answers)
    monkeypatch.setattr(soup_module, "top1_and_loss", lambda *_: (0.6, next(scripted)))

    class Silent:
        def update(self, *_):
            pass

    found, top1 = make_soup(model, state, {"val": None}, config, Silent())
    assert (found, model.value.item()) == (epochs, value)
    assert top1 == (0.6 if len(epochs) > 1 else 0.5)


def test_the_average_of_one_is_that_one():
    value = torch.randn(7)
    assert torch.equal(average([{"a": value}])["a"], value)
    torch.testing.assert_close(average([{"a": value}, {"a": value + 2}])["a"], value + 1)


@pytest.mark.slow
def test_a_run_holds_the_average_of_its_epochs_and_goes_on_when_killed(
    splits, make_config, tmp_path
):
    config = make_config(method="vpt", epochs=4, select="soup", calibrate="none", name="x")
    whole = tune(splits, tmp_path / "a.safetensors", config)
    assert whole.soup is None or (whole.soup[0] == whole.best_epoch and len(whole.soup) < 4)
    assert whole.to_json()["soup"] == read_adapter(whole.adapter).train["soup"] == whole.soup
    with pytest.raises(KeyboardInterrupt):
        tune(splits, tmp_path / "b.safetensors", config, progress=Stop(60))
    again = tune(splits, tmp_path / "b.safetensors", config, resume=True)
    assert again.soup == whole.soup
    one, other = (read_adapter(result.adapter).tensors for result in (whole, again))
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert tune(splits, tmp_path / "b.safetensors", config, resume=True).soup == whole.soup
