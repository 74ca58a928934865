"""Training trains: coloured noise is told apart, and with nothing to learn from it is not."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from tests.support.marks import quick_if  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.idle_settings import without_idle  # noqa: E402

METHODS = {
    "linear": {"method": "linear"},
    "vpt-deep": {"method": "vpt"},
    "vpt-shallow": {"method": "vpt", "insert": "shallow"},
    "bpt-bilinear": {"method": "bpt"},
    "bpt-shallow": {"method": "bpt", "insert": "shallow"},
    "bpt-whitened-start": {"method": "bpt", "b_init": "whiten"},
    "bpt-fwhiten": {"method": "bpt", "form": "fwhiten"},
    "bpt-twhiten": {"method": "bpt", "form": "twhiten"},
    "ln": {"method": "ln"},
    "ln-cyclic": {"method": "ln", "cycles": 2, "head_epochs": 2, "ln_epochs": 2},
    "ln+bpt": {"method": "ln+bpt"},
    "lora": {"method": "lora"},
    "ln+lora+vpt": {"method": "ln+lora+vpt", "lora_targets": "all"},
}
QUICK = ("linear", "vpt-deep", "bpt-bilinear", "ln")


def losses(result) -> list[float]:
    records = [json.loads(line) for line in result.metrics.read_text().splitlines()]
    return [record["train_loss"] for record in records if record["epoch"]]


@pytest.mark.parametrize("name", quick_if(QUICK.__contains__, METHODS))
def test_each_method_learns(splits, make_config, tmp_path, name):
    rates = {"epochs": 8, "lr": 1e-2, "lr_head": 2e-2, "lr_ln": 1e-2, "lr_lora": 1e-2}
    for start in ("probe", "zero"):
        config = make_config(**_that_matter(name, **rates, head_init=start))
        result = tune(splits, tmp_path / f"{start}.safetensors", config)
        assert result.val_top1 > 0.9
        assert result.test_top1 > 0.8
    if name != "linear":  # which has no epochs, and is the probe in either case
        assert losses(result)[-1] < 0.6 * losses(result)[0]


@pytest.mark.parametrize(
    "name", quick_if(QUICK.__contains__, [name for name in METHODS if name != "linear"])
)
def test_the_body_alone_learns(splits, make_config, tmp_path, name):
    """With a head that stands still, what falls is the prompts' or the LayerNorms' doing."""
    still = {"lr_head": 1e-12, "wd_head": 0.0, "dropout": 0.0, "augment": "none"}
    still["head_init"] = "zero"
    rates = {"start": (3, 1e-9), "moved": (8, 5e-2)}  # three epochs are enough to see it stand
    start, moved = (
        tune(
            splits,
            tmp_path / f"{at}.safetensors",
            make_config(
                **_that_matter(name, **still, epochs=epochs, lr=rate, lr_ln=rate, lr_lora=rate)
            ),
        )
        for at, (epochs, rate) in rates.items()
    )
    assert max(losses(start)) - min(losses(start)) < 1e-3
    assert losses(moved)[-1] < losses(start)[-1] - 0.01


def _that_matter(name: str, **settings):
    return without_idle({"method": "bpt", **METHODS[name], **settings})


def test_without_a_rate_nothing_is_learned(splits, make_config, tmp_path):
    """The twin of the tests above: they would notice a training that does nothing."""
    config = make_config(method="vpt", epochs=8, lr=1e-9, lr_head=1e-9, head_init="zero")
    result = tune(splits, tmp_path / "a.safetensors", config)
    assert result.val_top1 < 0.9
    assert losses(result)[-1] > 0.9 * losses(result)[0]
