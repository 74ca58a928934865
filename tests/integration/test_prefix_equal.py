"""The mathematics of prefix keys and values, in numpy (export) and in torch (training): equal."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from timm.layers import RmsNorm  # noqa: E402
from timm.models.vision_transformer import Block  # noqa: E402

from tests.support.timms import OLDER, REASON  # noqa: E402
from tests.support.tolerances import CLEARLY, FOLD, largest_difference  # noqa: E402
from vptkit.export.fold.block_tensors import Tensors, block_parts  # noqa: E402
from vptkit.export.fold.equations import fold_layer_norm  # noqa: E402
from vptkit.export.fold.fold_block import fold_block  # noqa: E402
from vptkit.export.fold.prefix_keys_values import prefix_keys_values, prompts_seen  # noqa: E402
from vptkit.tune.backbone import prefix_forward  # noqa: E402

WIDTH, HEADS, PROMPTS, EPS = 32, 2, 5, 1e-6
NORMS = {"layer": torch.nn.LayerNorm, "rms": RmsNorm}
CASES = [(norm, bias) for norm in NORMS for bias in (True, False)]


def random_block(norm, bias):
    """A timm block, float64, none of its parameters at its initial value."""
    generator = torch.Generator().manual_seed(0)
    block = Block(WIDTH, HEADS, qkv_bias=bias, norm_layer=partial(NORMS[norm], eps=EPS))
    block = block.double().eval().requires_grad_(requires_grad=False)
    for value in block.state_dict().values():
        value.copy_(torch.randn(value.shape, generator=generator, dtype=torch.float64))
    return block


@pytest.fixture
def prompt():
    return 3 * np.random.default_rng(1).standard_normal((PROMPTS, WIDTH)) + 1


def made(tiny_spec, prompt, norm, bias):
    """Spec and tensors of one block, and its K_p, V_p in torch."""
    if OLDER and norm == "rms":  # it divides by the variance, and is refused
        pytest.skip(REASON)
    block = random_block(norm, bias)
    spec = replace(
        tiny_spec,
        width=WIDTH,
        heads=HEADS,
        mlp_width=4 * WIDTH,
        norm_eps=EPS,
        norm=norm,
        qkv_bias=bias,
    )
    tensors = Tensors({f"blocks.0.{name}": x.numpy() for name, x in block.state_dict().items()})
    expected = prefix_forward.prefix_keys_values(block, torch.from_numpy(prompt))
    return spec, tensors, [rows.numpy() for rows in expected]


def differences(found, expected):
    return [largest_difference(x, y) for x, y in zip(found, expected, strict=True)]


@pytest.mark.parametrize(("norm", "bias"), CASES)
def test_numpy_says_what_torch_says(tiny_spec, prompt, norm, bias):
    """The norm's affine folded into the linears, and beside them, as a bank has it."""
    spec, tensors, expected = made(tiny_spec, prompt, norm, bias)
    (parts,), _ = block_parts(spec, tensors, 0)
    folded = (fold_layer_norm(*parts.norm, linear) for linear in (parts.k, parts.v))
    found = prefix_keys_values(spec, prompts_seen(spec, prompt), *folded)
    assert max(differences(found, expected)) < FOLD
    rows = prompts_seen(spec, prompt, parts.norm)
    found = prefix_keys_values(spec, rows, parts.k, parts.v)
    assert max(differences(found, expected)) < FOLD


@pytest.mark.parametrize(("norm", "bias"), CASES)
def test_a_folded_block_says_the_same_up_to_a_shift_of_all_rows(tiny_spec, prompt, norm, bias):
    """Keys lose β W_k + b_k, values β W_v + b_v, here as in the rows of the image."""
    spec, tensors, expected = made(tiny_spec, prompt, norm, bias)
    (parts,), _ = block_parts(spec, tensors, 0)
    shifts = [parts.norm.beta @ linear.w + linear.b for linear in (parts.k, parts.v)]
    (a,) = fold_block(spec, tensors, prompt, 0).attentions
    assert a.k_bias is None
    assert a.v_bias is None
    unshifted = [rows - shift for rows, shift in zip(expected, shifts, strict=True)]
    assert max(differences(a.prefix[:2], unshifted)) < FOLD
    if bias or norm == "layer":  # else there is no shift to lose
        assert min(differences(a.prefix[:2], expected)) > CLEARLY * FOLD


@pytest.mark.parametrize(("norm", "bias"), CASES)
def test_broken_twins_differ(tiny_spec, prompt, norm, bias):
    """Prompts that bypass the norm, its affine forgotten, keys and values exchanged."""
    spec, tensors, expected = made(tiny_spec, prompt, norm, bias)
    (parts,), _ = block_parts(spec, tensors, 0)
    seen = prompts_seen(spec, prompt, parts.norm)
    for rows, k, v in (
        (prompt, parts.k, parts.v),
        (prompts_seen(spec, prompt), parts.k, parts.v),
        (seen, parts.v, parts.k),
    ):
        found = prefix_keys_values(spec, rows, k, v)
        assert min(differences(found, expected)) > CLEARLY * FOLD
