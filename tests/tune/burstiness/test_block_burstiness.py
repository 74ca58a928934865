"""Burstiness in every block: against the tokens kept and everything computed in one go."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from vptkit.backbones.merge_schedule import TokenMerging  # noqa: E402
from vptkit.errors import AdapterError, VptkitError  # noqa: E402
from vptkit.formats.adapter import Adapter, BackboneRef  # noqa: E402
from vptkit.images.preprocess import Preprocess  # noqa: E402
from vptkit.tune.burstiness.block_burstiness import mean_cosine, measure  # noqa: E402

D, L = 32, 2


def draw(*shape: int, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def adapter_of(insert: str, prompts: dict[str, np.ndarray]) -> Adapter:
    return Adapter(
        name="a",
        backbone=BackboneRef(name="vit"),
        method="vpt",
        insert=insert,  # type: ignore[arg-type]
        prompt_length=4,
        pool="token",
        norm="before_pool",
        labels=("x", "y"),
        preprocess=Preprocess(input_size=(3, 32, 32), mean=(0, 0, 0), std=(1, 1, 1)),
        tensors=prompts,
    )


def entering(model, pixels, tap):
    seen = []
    hooks = [
        (block.norm1 if tap == "post_ln1" else block).register_forward_hook(
            lambda _, inputs, output: seen.append(output if tap == "post_ln1" else inputs[0])
        )
        for block in model.blocks
    ]
    model(pixels)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("tap", ["pre_ln1", "post_ln1"])
@pytest.mark.parametrize("sizes", [[10], [3, 3, 4], [9, 1]])
def test_every_block_is_what_one_go_says(make_vit, tap, sizes):
    model = make_vit().double()
    pixels = draw(10, 3, 32, 32)
    blocks = measure(model, lambda: torch.split(pixels, sizes), {}, tap=tap, floor=1e-12)
    assert [block.block for block in blocks] == list(range(L))
    for found, block, x in zip(blocks, model.blocks, entering(model, pixels, tap), strict=True):
        weight = block.attn.qkv.weight
        w_q, w_k = weight[:D], weight[D : 2 * D]
        logits = (x[0] @ w_q.T) @ (x[1] @ w_k.T).T  # what attention compares, heads together
        torch.testing.assert_close(logits, x[0] @ (w_q.T @ w_k) @ x[1].T)
        products = x @ (w_q.T @ w_k).T
        rows = products.flatten(0, 1)
        sigma = rows.T @ rows / len(rows)
        values, vectors = torch.linalg.eigh(sigma)
        whitened = products @ vectors @ torch.diag(values**-0.5) @ vectors.T
        wanted = {
            "weights": w_q.T @ w_k,
            "weights_released": w_q @ w_k.T,
            "tokens": x,
            "products": products,
            "whitened": whitened,
        }
        assert set(found.quantities) == set(wanted)
        for name, value in wanted.items():
            tails = found.quantities[name].tally.tails()
            flat = value.flatten().numpy()
            assert tails.count == flat.size
            assert tails.rms == pytest.approx(np.sqrt((flat**2).mean()), rel=1e-6)
            assert tails.max_abs == pytest.approx(np.abs(flat).max(), rel=1e-5)
            if value.ndim == 3:
                cosine = np.mean([cosine_of(image) for image in value])
                assert found.quantities[name].cosine == pytest.approx(cosine, rel=1e-6)
            else:
                assert found.quantities[name].cosine is None
        assert found.quantities["whitened"].tally.tails().rms == pytest.approx(1, rel=1e-6)
        twin = found.quantities["weights_released"].tally.tails().rms
        assert found.quantities["weights"].tally.tails().rms != pytest.approx(twin, rel=1e-3)


def cosine_of(rows) -> float:
    """Pair by pair."""
    rows = rows.numpy()
    pairs = [
        abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b)
        for i, a in enumerate(rows)
        for j, b in enumerate(rows)
        if i != j
    ]
    return float(np.mean(pairs))


def test_cosines():
    rows = draw(5, 8)
    assert mean_cosine(rows) == pytest.approx(cosine_of(rows))
    assert mean_cosine(torch.eye(4)) == 0
    assert mean_cosine(torch.tensor([[1.0, 2.0], [-2.0, -4.0]])) == pytest.approx(1)
    assert mean_cosine(draw(1, 8)) is None
    assert mean_cosine(torch.zeros(3, 4)) == 0


def test_prompts_before_and_after_whitening(make_vit):
    """Of P~ = P Wᵀ the whitened cosine is that of P."""
    model = make_vit().double()
    batches = draw(6, 3, 32, 32)[None]
    plain = measure(model, lambda: batches, {})
    raw = [draw(4, D, seed=i) for i in range(L)]
    prompts = {
        f"prompt.{i}": (p @ block.sigma.matrix.T).numpy()
        for i, (p, block) in enumerate(zip(raw, plain, strict=True))
    }
    first = {"prompt.0": prompts["prompt.0"]}
    adapters = {"deep": adapter_of("deep", prompts), "shallow": adapter_of("shallow", first)}
    blocks = measure(model, lambda: batches, adapters)
    for i, block in enumerate(blocks):
        found = block.prompts["deep"]
        assert found.cosine_whitened == pytest.approx(mean_cosine(raw[i]), rel=1e-6)
        rows = torch.from_numpy(prompts[f"prompt.{i}"])
        assert found.cosine == pytest.approx(mean_cosine(rows))
        assert found.cosine != pytest.approx(found.cosine_whitened, rel=1e-3)
        assert found.tally.tails().max_abs == pytest.approx(float(rows.abs().max()))
        assert set(block.prompts) == ({"deep", "shallow"} if i == 0 else {"deep"})
    json.dumps([block.to_json() for block in blocks], allow_nan=False)
    assert "cosine" not in blocks[0].to_json()["weights"]
    with pytest.raises(AdapterError, match="linear: the adapter has no prompts"):
        measure(model, lambda: batches, {"linear": adapter_of("none", {})})
    merging = replace(adapters["deep"], merging=TokenMerging(schedule=(1, 0)))
    with pytest.raises(AdapterError, match=r"m: the adapter was tuned with merged tokens.*--merge"):
        measure(model, lambda: batches, {"m": merging})


def test_blocks_without_one_attention_are_refused(make_vit):
    model = make_vit()
    del model.blocks[0].attn
    with pytest.raises(VptkitError, match="not defined for blocks"):
        measure(model, lambda: [torch.zeros(1, 3, 32, 32)], {})


@pytest.mark.parametrize("largest", [320.0, -321.5, 322.9])
def test_the_largest_number_is_drawn(largest):
    """One number far out, what the picture is for: its bar is a whole one."""
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from vptkit.tune.burstiness.block_burstiness import BlockTails, Quantity
    from vptkit.tune.burstiness.burstiness_plot import _draw, _draw_prompts

    quantity = Quantity()
    quantity.tally.add(torch.cat([draw(10_000), torch.tensor([largest], dtype=torch.float64)]))
    axes = Figure().subplots(2)
    _draw(axes[0], quantity)
    sigma = None  # not drawn
    _draw_prompts(axes[1], BlockTails(0, sigma, {}, {"a": quantity}), {"a": "C0"})  # type: ignore[arg-type]
    for one in axes:
        counts = one.patches[0].get_data().values
        assert counts[-1 if largest > 0 else 0] == pytest.approx(1)


def test_an_adapter_has_one_colour_and_stands_in_one_legend(make_vit, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from vptkit.tune.burstiness import burstiness_plot

    figures = []
    real = burstiness_plot.new_figure

    def new_figure(*size, **options):
        figures.append(real(*size, **options))
        return figures[0]

    monkeypatch.setattr(burstiness_plot, "new_figure", new_figure)
    both = {f"prompt.{i}": draw(4, D, seed=i).numpy() for i in range(L)}
    deep = "flowers-bilinear-of-a-long-name-7"
    adapters = {
        "shallow": adapter_of("shallow", {"prompt.0": both["prompt.0"]}),
        deep: adapter_of("deep", both),
    }
    batches = draw(6, 3, 32, 32)[None]
    blocks = measure(make_vit().double(), lambda: batches, adapters)
    burstiness_plot.plot_burstiness(blocks, "x", tmp_path / "x.png")
    top, bottom = figures[0].subfigs
    first, last = top.axes[4], top.axes[9]
    colours = [{p.get_label(): p.get_edgecolor() for p in axes.patches} for axes in (first, last)]
    short = "flowers-bili…a-long-name-7"
    assert set(colours[0]) == {"shallow", short}
    assert colours[1] == {short: colours[0][short]}
    assert colours[0]["shallow"] != colours[0][short]
    (legend,) = top.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["Gaussian", "Laplacian", "exponent e, fitted", "shallow", short]
    box = legend.get_window_extent()
    assert all(axes.get_legend() is None for axes in top.axes)
    assert not any(box.overlaps(axes.get_window_extent()) for axes in figures[0].axes)
    ratios = bottom.axes[1]
    low, high = ratios.get_ylim()
    shown = [t.get_text() for t in ratios.get_yticklabels() if low <= t.get_position()[1] <= high]
    assert len(shown) >= 2
    assert all(float(text) > 0 for text in shown)  # 5, not 5 × 10⁰
