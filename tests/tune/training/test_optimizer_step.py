"""One step of the optimizer: parts and shares add up, classes weigh, precision is the backbone's."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from vptkit.errors import VptkitError  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import spec_from_model  # noqa: E402
from vptkit.tune.methods.tuned_model import Tuned, parameter_groups  # noqa: E402
from vptkit.tune.training.device import place  # noqa: E402
from vptkit.tune.training.optimizer_step import Batch, Stepper, class_weights, require_finite  # noqa: E402

CPU = torch.device("cpu")


def images(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(count, 3, 32, 32, generator=generator)
    return pixels, torch.randint(3, (count,), generator=generator)


@pytest.fixture
def make_tuned(make_vit, make_config):
    """A function: (model, configuration), ready to learn."""

    def make(**settings: Any) -> tuple[Tuned, Any]:
        config = make_config(**settings)
        model = make_vit()
        tuned = Tuned(model, spec_from_model(model), config, 3, None)
        place(tuned, CPU, config)
        return tuned.train(), config

    return make


def learned(tuned: Tuned, config: Any, *batches: Batch, **options: Any) -> dict[str, torch.Tensor]:
    """The parameters after a step of plain gradient descent, so that gradients show as they are."""
    optimizer = torch.optim.SGD(parameter_groups(tuned, config), lr=1.0)
    for group in optimizer.param_groups:
        group |= {"lr": 1.0, "weight_decay": 0.0}
    stepper = Stepper(tuned, optimizer, config, **options)
    torch.manual_seed(5)
    for batch in batches:
        stepper.step(batch, 0)
    return {name: value.clone() for name, value in tuned.state_dict().items()}


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


METHODS = [
    {"method": "vpt", "dropout": 0.3, "clip": 0.0},
    {"method": "bpt", "form": "bilinear", "clip": 0.1},
    {"method": "ln", "clip": 0.0},
]


@pytest.mark.parametrize("settings", METHODS, ids=lambda s: s["method"])
@pytest.mark.parametrize("parts", [2, 3, 50])
def test_parts_add_up_to_the_batch(make_tuned, settings, parts):
    """Two steps, so that the masks behind a divided step count as well."""
    steps = [Batch(*images(7), 7), Batch(*images(5, 1), 5)]
    whole = learned(*make_tuned(**settings), *steps)
    divided = learned(*make_tuned(**settings, accumulate=parts), *steps)
    assert distance(whole, divided) < 1e-5


def test_a_wrong_scale_is_seen(make_tuned):
    """Each part divided by its own number of images: the sum is parts times too large."""
    settings = METHODS[0]
    whole = learned(*make_tuned(**settings), Batch(*images(6), 6))
    wrong = learned(*make_tuned(**settings, accumulate=3), Batch(*images(6), 2))
    assert distance(whole, wrong) > 1e-2


def test_masks_that_differ_between_parts_are_seen(make_tuned, monkeypatch):
    settings = METHODS[0]
    whole = learned(*make_tuned(**settings), Batch(*images(6), 6))
    monkeypatch.setattr(Stepper, "_put_back", lambda *_, **__: contextlib.nullcontext())
    other = learned(*make_tuned(**settings, accumulate=3), Batch(*images(6), 6))
    assert distance(whole, other) > 1e-3


def test_loss_and_right_answers_are_the_batch_s(make_tuned):
    pixels, targets = images(7)
    for parts in (1, 3):
        tuned, config = make_tuned(method="vpt", dropout=0.0, accumulate=parts)
        with torch.no_grad():
            logits = tuned(pixels)
        stepper = Stepper(tuned, torch.optim.SGD(tuned.parameters(), lr=0.1), config)
        loss, right = stepper.step(Batch(pixels, targets, 7), 0)
        assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, targets)))
        assert right == int((logits.argmax(1) == targets).sum())


def test_shares_of_processes_add_up(make_tuned, monkeypatch):
    """The second process's sums are taken down, then added to the first one's."""
    settings = METHODS[0]
    pixels, targets = images(7)
    whole = learned(*make_tuned(**settings), Batch(pixels, targets, 7))
    taken: list[list[torch.Tensor]] = []

    def take(tensors):
        taken.append([tensor.clone() for tensor in tensors])

    def add(tensors):
        for tensor, other in zip(tensors, taken[0], strict=True):
            tensor.add_(other)

    monkeypatch.setattr("vptkit.tune.training.optimizer_step.sum_over_processes", take)
    alone = learned(*make_tuned(**settings), Batch(pixels[1::2], targets[1::2], 7))
    monkeypatch.setattr("vptkit.tune.training.optimizer_step.sum_over_processes", add)
    together = learned(*make_tuned(**settings), Batch(pixels[::2], targets[::2], 7))
    assert distance(whole, together) < 1e-5
    assert distance(whole, alone) > 1e-2


def test_an_empty_share_of_features(make_tuned):
    """A last batch of one image: the other process has nothing, and still takes part."""
    tuned, config = make_tuned(method="linear")
    before = tuned.head.weight.clone()
    batch = Batch(torch.zeros(0, 32), torch.zeros(0, dtype=torch.int64), 1)
    after = learned(tuned, config, batch, from_features=True)
    assert torch.equal(before, after["head.weight"])


# ---- classes ------------------------------------------------------------------------------------


def test_weights_of_classes(make_config):
    targets = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2], dtype=np.int64)
    assert class_weights(make_config(), targets, 3) is None
    weights = class_weights(make_config(class_weights="balanced"), targets, 3)
    assert weights.tolist() == pytest.approx([9 / (3 * 6), 9 / (3 * 2), 9 / (3 * 1)])
    assert float(weights[targets].mean()) == pytest.approx(1)
    even = class_weights(make_config(class_weights="balanced"), np.arange(6) % 3, 3)
    assert even.tolist() == [1, 1, 1]


@pytest.mark.parametrize("parts", [1, 3])
def test_weights_are_in_the_loss(make_tuned, parts):
    """By hand: the gradient of Σ w ce / B for the bias of the head."""
    pixels, targets = images(7)
    weights = torch.tensor([0.5, 1.0, 4.0])
    tuned, config = make_tuned(method="vpt", dropout=0.0, clip=0.0, accumulate=parts)
    with torch.no_grad():
        wrong = tuned(pixels).softmax(dim=1) - torch.nn.functional.one_hot(targets, 3)
    gradient = (weights[targets, None] * wrong).sum(dim=0) / 7
    after = learned(tuned, config, Batch(pixels, targets, 7), weights=weights)
    torch.testing.assert_close(after["head.bias"], -gradient)
    assert not torch.allclose(after["head.bias"], -wrong.mean(dim=0), atol=1e-3)


# ---- precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "dtype", "bound"),
    [("bf16", torch.bfloat16, 6e-2), ("fp16", torch.float16, 1e-2)],
)
def test_half_precision_is_the_backbone_s_alone(make_tuned, precision, dtype, bound):
    tuned, _ = make_tuned(method="ln+bpt", precision=precision)
    full, _ = make_tuned(method="ln+bpt")
    seen: dict[str, torch.dtype] = {}

    def note(name: str):
        return lambda _module, _given, out: seen.update({name: out.dtype})

    block = tuned.backbone.blocks[1]
    block.norm1.register_forward_hook(note("norm"))
    block.mlp.fc1.register_forward_hook(note("product"))
    tuned.head.register_forward_hook(note("logits"))
    pixels, _ = images(4)
    with torch.no_grad():
        prompts = tuned.prompts()
        logits, exact = tuned(pixels), full(pixels)
    assert seen == {"norm": torch.float32, "product": dtype, "logits": torch.float32}
    assert all(prompt.dtype == torch.float32 for prompt in prompts)
    assert {value.dtype for value in tuned.state_dict().values()} == {torch.float32}
    error = float((logits - exact).abs().max() / exact.abs().max())
    assert 0 < error < bound  # of bf16's 8 bits and fp16's 11, after two blocks


def test_an_overflow_in_fp16_is_skipped(make_tuned):
    """The scaler's factor is set too large: nothing is learned, and the factor is halved."""
    tuned, config = make_tuned(method="vpt", precision="fp16")
    before = {name: value.clone() for name, value in tuned.state_dict().items()}
    stepper = Stepper(tuned, torch.optim.SGD(tuned.parameters(), lr=0.1), config)
    batch = Batch(*images(4), 4)
    stepper.scaler.load_state_dict({**stepper.scaler.state_dict(), "scale": 2.0**120})
    stepper.step(batch, 0)
    assert distance(before, tuned.state_dict()) == 0
    assert stepper.scaler.state_dict()["scale"] == 2.0**119
    stepper.scaler.load_state_dict({**stepper.scaler.state_dict(), "scale": 1024.0})
    stepper.step(batch, 0)
    assert distance(before, tuned.state_dict()) > 0


@pytest.mark.parametrize(("precision", "advice"), [("fp32", r"\)$"), ("fp16", "--precision bf16")])
def test_a_loss_that_runs_away(make_tuned, precision, advice):
    tuned, config = make_tuned(method="vpt", precision=precision)
    with torch.no_grad():
        tuned.head.weight.fill_(float("inf"))
    stepper = Stepper(tuned, torch.optim.SGD(tuned.parameters(), lr=0.1), config)
    with pytest.raises(VptkitError, match=rf"loss became nan in epoch 4: lower --lr.*{advice}"):
        stepper.step(Batch(*images(4), 4), 3)


@pytest.mark.parametrize(
    ("method", "rates"),
    [
        ("linear", "lower --lr-head (now 0.0001)"),
        ("ln", "lower --lr-ln (now 0.01) or --lr-head (now 0.0001)"),
        ("ln+vpt", "lower --lr (now 0.005) or --lr-ln (now 0.01) or --lr-head (now 0.0001)"),
    ],
)
def test_the_rates_that_a_method_has_are_named(make_config, method, rates):
    with pytest.raises(VptkitError) as caught:
        require_finite(float("inf"), 0, make_config(method=method))
    assert str(caught.value).endswith(rates)
