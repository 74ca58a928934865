"""Checkpoints of VPT's and BPT's code: made here in their layouts, their formulas."""

from __future__ import annotations

import re
import zipfile
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
from torch.nn import functional as F  # noqa: E402

from tests.support.foreign_checkpoints import (  # noqa: E402
    HEAD,
    C,
    D,
    L,
    M,
    P,
    bpt_state,
    draw,
    forward,
    pixels_of,
    require_parity,
    vpt_state,
)
from vptkit.errors import AdapterError  # noqa: E402
from vptkit.tune.importers.vpt_bpt_layouts import from_bpt, from_vpt  # noqa: E402

# ---- VPT ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize("project", [0, 7])
def test_supervised_vpt(bring, make_vit, deep, project):
    model = make_vit()
    state, rows = vpt_state(model, deep=deep, project=project)
    adapter = bring({"model": state, "epoch": 100}, "vpt")
    pixels = pixels_of(adapter)
    require_parity(adapter, forward(model, pixels, rows, mean=False, norm=model.norm))
    assert (adapter.method, adapter.insert) == ("vpt", "deep" if deep else "shallow")
    assert (adapter.pool, adapter.norm, adapter.labels) == ("token", "before_pool", ("0", "1", "2"))
    assert adapter.preprocess.interpolation == "bilinear"
    assert adapter.preprocess.mean == (0.485, 0.456, 0.406)
    assert bring.document["backbone_compared"] == len(model.state_dict())
    for pool in ("avg", "avg_prompts"):  # its norm would be replaced by the MAE models' new one
        with pytest.raises(AdapterError, match=f"--pool {pool}: .* pools by the class token"):
            bring(state, "vpt", pool=pool)
    wrong = rows[::-1] if deep else [2 * rows[0]]  # the twin
    with pytest.raises(AssertionError):
        require_parity(adapter, forward(model, pixels, wrong, mean=False, norm=model.norm))


def test_vpt_on_mae(bring, make_vit):
    """The mean takes the prompts in; behind it stands a new norm, not the backbone's."""
    model = make_vit()
    rows = [*draw(L, M, D, seed=5)]
    state = {f"enc.{k}": v for k, v in model.state_dict().items() if not k.startswith("norm.")}
    state |= {"enc.fc_norm.weight": torch.ones(D), "enc.fc_norm.bias": torch.zeros(D)}
    state["enc.prompt_embeddings"] = rows[0][None]
    state["enc.deep_prompt_embeddings"] = torch.stack(rows[1:])
    state |= {f"head.last_layer.{k}": v for k, v in HEAD.items()}
    adapter = bring({"module." + k: v for k, v in state.items()}, "vpt")
    pixels = pixels_of(adapter)

    def fresh(x: Any) -> Any:
        return F.layer_norm(x, (D,), eps=1e-6)

    require_parity(adapter, forward(model, pixels, rows, mean=True, norm=fresh))
    with pytest.raises(AssertionError):
        require_parity(adapter, forward(model, pixels, rows, mean=True, norm=model.norm))
    assert (adapter.pool, adapter.norm) == ("avg_prompts", "after_pool")
    with pytest.raises(AdapterError, match="pools by a mean"):
        bring(state, "vpt", pool="token")
    alone = {k: v for k, v in state.items() if "prompt" in k or k.startswith("head")}
    again = bring(alone, "vpt", pool="avg_prompts")  # without the backbone: the same norm
    np.testing.assert_array_equal(again.golden()[1], adapter.golden()[1])
    with pytest.raises(AdapterError, match="does not say how its model pools"):
        bring(alone, "vpt")


def test_prompts_as_the_vpt_trainer_saves_them(bring, make_vit, head_file, tmp_path):
    """prompt_ep100.pth: NumPy arrays, no head, no backbone; also of NumPy before 2.0."""
    model = make_vit()
    _, rows = vpt_state(model)
    state = {
        "shallow_prompt": rows[0][None].numpy(),
        "deep_prompt": torch.stack(rows[1:]).numpy(),
    }
    adapter = bring(state, "vpt", head=head_file)
    pixels = pixels_of(adapter)
    require_parity(adapter, forward(model, pixels, rows, mean=False, norm=model.norm))
    with pytest.raises(AdapterError, match=r"weight.*is missing: pass --head"):
        bring(state, "vpt")

    from vptkit.tune.importers.checkpoint_reader import read_state

    names = {b"numpy._core.multiarray", b"numpy.core.multiarray"}
    seen = set()
    for name in names:
        with zipfile.ZipFile(tmp_path / "foreign.pth") as old:
            contents = {n: old.read(n) for n in old.namelist()}
        pickled = next(n for n in contents if n.endswith("data.pkl"))
        contents[pickled] = re.sub(rb"numpy\.(_?)core\.multiarray", name, contents[pickled])
        with zipfile.ZipFile(tmp_path / "other.pth", "w") as new:
            for n, data in contents.items():
                new.writestr(n, data)
        seen.add(name in contents[pickled])
        np.testing.assert_array_equal(
            read_state(tmp_path / "other.pth")["shallow_prompt"], state["shallow_prompt"]
        )
    assert seen == {True}


# ---- BPT ----------------------------------------------------------------------------------------


def bpt_prompts(vectors: Any, kernels: list[Any]) -> list[Any]:
    """As the authors make them: a 1x1 convolution over prompts laid out as a square."""
    side = int(M**0.5)
    rows = []
    for a, kernel in zip(vectors, kernels, strict=True):
        if kernel.ndim == 2:
            rows.append(F.linear(a, kernel))
        else:
            grid = a[None].transpose(1, 2).reshape(1, P, side, side)
            rows.append(F.conv2d(grid, kernel).reshape(1, D, -1).transpose(1, 2)[0])
    return rows


@pytest.mark.parametrize("pool", ["token", "avg_prompts"])
@pytest.mark.parametrize("variant", ["shallow", "deep", "linear"])
def test_bpt(bring, make_vit, variant, pool):
    model = make_vit()
    sites = 1 if variant == "shallow" else L
    vectors = draw(sites, M, P, seed=7)
    shape = (D, P) if variant == "linear" else (D, P, 1, 1)
    kernels = [draw(*shape, seed=20 + i) for i in range(sites)]
    state = dict(model.state_dict()) | {f"head.{k}": v for k, v in HEAD.items()}
    state["random_vectors"] = vectors
    if variant == "shallow":
        state["conv1x1.weight"] = kernels[0]
    else:
        state |= {f"conv1x1.{i}.weight": kernel for i, kernel in enumerate(kernels)}
    whole = {"epoch": 3, "model": state, "best_acc": 0.5, "train_acc": [0.1], "optimizer": {}}
    adapter = bring(whole, "bpt", pool=pool)
    pixels = pixels_of(adapter)
    rows = bpt_prompts(vectors, kernels)
    mean = pool == "avg_prompts"
    require_parity(adapter, forward(model, pixels, rows, mean=mean, norm=model.norm))
    with pytest.raises(AssertionError):
        require_parity(adapter, forward(model, pixels, rows, mean=not mean, norm=model.norm))
    assert adapter.insert == ("shallow" if variant == "shallow" else "deep")
    assert adapter.tensors["prompt.0.b"].shape == (D, P)
    assert adapter.preprocess.interpolation == "bicubic"
    with pytest.raises(AdapterError, match="does not say how its model pools"):
        bring(whole, "bpt")


# ---- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        ("bpt", {"gate.weight": 3}, "does not have: gate.weight"),
        ("bpt", {"norm.weight": None}, "are missing: norm.weight"),
        ("bpt", {"random_vectors": None}, "missing: random_vectors"),
        ("bpt", {"conv1x1.weight": None}, "missing: conv1x1.0.weight, conv1x1.1.weight"),
        ("bpt", {"conv1x1.weight": (D, P + 1, 1, 1)}, "conv1x1.weight has the shape"),
        ("bpt", {"random_vectors": (M, D)}, "random_vectors has the shape"),  # the SVD variant
        ("bpt", {"head.weight": (C, D + 1)}, r"head is \(3, 33\)"),
        ("vpt", {"enc.transformer.gate": 3}, "does not have: gate"),
        ("vpt", {"gate": 3}, "VPT does not have: gate"),
        ("vpt", {"enc.transformer.prompt_embeddings": None}, "missing: prompt_embeddings"),
        ("vpt", {"enc.transformer.deep_prompt_embeddings": (L, M, D)}, r"expected \(1, 4, 32\)"),
        ("vpt", {"enc.transformer.prompt_proj.bias": (D,)}, "weight and bias must both"),
        ("vpt", {"enc.transformer.encoder.layer.0.attn.key.bias": None}, "attn.key.bias"),
        ("vpt", {"head.last_layer.bias": None}, "head's bias is missing"),
        ("vpt", {"head.projection.0.weight": (D, D)}, "VPT does not have: head.projection"),
    ],
)
def test_names_and_shapes_are_checked(bring, make_vit, layout, change, message):
    state = vpt_state(make_vit())[0] if layout == "vpt" else bpt_state(make_vit())
    bring(dict(state), layout, pool="token")  # as it is, it can be read
    for name, shape in change.items():
        state.pop(name, None)
        if shape is not None:
            state[name] = draw(*(shape if isinstance(shape, tuple) else (shape,)))
    with pytest.raises(AdapterError, match=message):
        bring(state, layout, pool="token")


def numbers(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape)


def test_a_projection_is_multiplied_out(tiny_spec):
    """P = E Wᵀ + b, for the first block's prompts and for the deep ones."""
    weight, bias = numbers(8, 5), numbers(8)
    state = {
        "prompt_embeddings": numbers(1, 3, 5),
        "deep_prompt_embeddings": numbers(1, 3, 5) + 1,
        "prompt_proj.weight": weight,
        "prompt_proj.bias": bias,
    }
    found = from_vpt(state, tiny_spec)
    assert (found.insert, found.prompt_length, found.pool) == ("deep", 3, None)
    for i, name in enumerate(("prompt_embeddings", "deep_prompt_embeddings")):
        expected = state[name][0] @ weight.T + bias
        np.testing.assert_allclose(found.tensors[f"prompt.{i}"], expected, rtol=1e-6)


def test_kernels_of_one_pixel_are_matrices(tiny_spec):
    """A convolution of 1 x 1 and a linear of the same numbers are one adapter."""
    vectors, kernel = numbers(1, 4, 3), numbers(8, 3)
    found = [
        from_bpt({"random_vectors": vectors, "conv1x1.weight": value}, tiny_spec)
        for value in (kernel, kernel[..., None, None])
    ]
    assert (found[0].insert, found[0].prompt_length) == ("shallow", 4)
    for one in found:
        np.testing.assert_array_equal(one.tensors["prompt.0.a"], vectors[0].astype(np.float32))
        np.testing.assert_array_equal(one.tensors["prompt.0.b"], kernel.astype(np.float32))
    deep = {"random_vectors": vectors} | {f"conv1x1.{i}.weight": kernel for i in range(2)}
    with pytest.raises(AdapterError, match=r"random_vectors has the shape .* expected \(2,"):
        from_bpt(deep, tiny_spec)


@pytest.mark.parametrize("change", [{"random_vectors": (1, 10**9, 0)}, {"head.weight": (C, 0)}])
def test_numbers_that_are_only_said_to_be_there(bring, make_vit, change):
    """A shape with a 0 takes no bytes; its product with another one took all memory."""
    state = bpt_state(make_vit())
    state |= {name: torch.zeros(shape) for name, shape in change.items()}
    if "random_vectors" in change:
        state["conv1x1.weight"] = torch.zeros(D, 0)
    with pytest.raises(AdapterError, match=r"holds no number|head is"):
        bring(state, "bpt", pool="token")


@pytest.mark.parametrize("name", ["random_vectors", "conv1x1.weight", "head.weight", "head.bias"])
def test_whole_numbers_are_refused(bring, make_vit, name):
    state = bpt_state(make_vit())
    state[name] = state[name].to(torch.int64)
    with pytest.raises(AdapterError, match=r"is of int64, (expected|not) floating point"):
        bring(state, "bpt", pool="token")
