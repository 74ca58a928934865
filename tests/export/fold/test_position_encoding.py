"""Rotary embedding and relative position bias against timm's own modules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from timm.layers import pos_embed_sincos as sincos  # noqa: E402
from timm.layers.pos_embed_rel import RelPosMlp  # noqa: E402
from timm.models.beit import RelativePositionBias  # noqa: E402

from tests.support.timms import make, needs  # noqa: E402
from tests.support.tolerances import CLEARLY, largest_difference  # noqa: E402
from vptkit.export.fold.block_tensors import Tensors  # noqa: E402
from vptkit.export.fold.position_encoding import half_layout, relative_bias, rotation  # noqa: E402
from vptkit.formats.backbone_spec import RelativePositions, Rotary  # noqa: E402

SINGLE = 1e-6  # timm computes angles in float32
HEADS, WIDTH, GRID = 2, 16, (3, 5)  # heads of 8 channels


@pytest.fixture
def spec(tiny_spec):
    size = {"image_size": (8 * GRID[0], 8 * GRID[1]), "patch_size": (8, 8)}
    return replace(tiny_spec, **size, width=WIDTH, heads=HEADS)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def rotated_by_timm(x, embed, rotary):
    """x [h, N, e] → [h, N, e], channels in the half layout."""
    half = {"half": True} if rotary.rotate_half else {}
    y = sincos.apply_rot_embed_cat(torch.from_numpy(x), embed.double(), **half)
    return y.numpy() if rotary.rotate_half else y.numpy()[..., half_layout(x.shape[-1])]


def rotated(x, found, rotary):
    if not rotary.rotate_half:
        x = x[..., half_layout(x.shape[-1])]
    half = x.shape[-1] // 2
    swapped = np.concatenate([x[..., half:], x[..., :half]], axis=-1)
    return x * found.cos + swapped * found.sin


AXIAL = Rotary(kind="axial")
CENTERED = Rotary(kind="centered", temperature=100.0, rotate_half=True)
CASES = [
    AXIAL,
    replace(AXIAL, rotate_half=True, temperature=50.0),
    replace(AXIAL, offset=1.0, reference=(16, 16), indexing="xy"),
    CENTERED,
    replace(CENTERED, rotate_half=False, normalize="max", offset=0.25),
    replace(CENTERED, normalize="min", indexing="xy"),
    replace(CENTERED, periods=(0.5, 20.0)),
]


def timms(rotary):
    options = {
        "grid_indexing": rotary.indexing,
        "grid_offset": rotary.offset,
        "rotate_half": rotary.rotate_half,
    }
    common = {"feat_shape": list(GRID), "temperature": rotary.temperature}
    if rotary.kind == "axial":
        usual = {"grid_indexing": "ij", "grid_offset": 0.0, "rotate_half": False}
        return make(
            sincos.RotaryEmbeddingCat,
            WIDTH // HEADS,
            in_pixels=False,
            ref_feat_shape=None if rotary.reference is None else list(rotary.reference),
            **common,
            **{key: value for key, value in options.items() if value != usual[key]},
        )
    shortest, longest = rotary.periods or (None, None)
    return needs(sincos, "RotaryEmbeddingDinoV3")(
        WIDTH // HEADS,
        normalize_coords=rotary.normalize,
        min_period=shortest,
        max_period=longest,
        **common,
        **options,
    )


@pytest.mark.parametrize("rotary", CASES)
def test_rotation_is_timms(spec, rng, rotary):
    x = rng.standard_normal((HEADS, GRID[0] * GRID[1], WIDTH // HEADS))
    expected = rotated_by_timm(x, timms(rotary).get_embed(), rotary)
    found = rotation(replace(spec, rotary=rotary), Tensors({}), 0)
    assert largest_difference(rotated(x, found, rotary), expected) < SINGLE
    other = replace(rotary, indexing={"ij": "xy", "xy": "ij"}[rotary.indexing])
    wrong = rotation(replace(spec, rotary=other), Tensors({}), 0)
    assert largest_difference(rotated(x, wrong, rotary), expected) > CLEARLY * SINGLE


@pytest.mark.parametrize("indexing", ["xy", "ij"])
def test_mixed_rotation_differs_by_block_and_head(spec, rng, indexing):
    rotary = Rotary(kind="mixed", indexing=indexing)
    module = needs(sincos, "RotaryEmbeddingMixed")(
        WIDTH, spec.depth, HEADS, feat_shape=list(GRID), grid_indexing=indexing
    )
    tensors = Tensors({"rope.freqs": module.freqs.detach().numpy()})
    x = rng.standard_normal((HEADS, GRID[0] * GRID[1], WIDTH // HEADS))
    embed = module.get_embed().detach()
    for i in range(spec.depth):
        expected = rotated_by_timm(x, embed[i], rotary)
        for j in range(spec.depth):
            found = rotation(replace(spec, rotary=rotary), tensors, j)
            difference = largest_difference(rotated(x, found, rotary), expected)
            assert difference < SINGLE if i == j else difference > CLEARLY * SINGLE


def biases(found):
    return found.table[:, found.columns]


@pytest.mark.parametrize("mode", ["cr", "swin"])
@pytest.mark.parametrize("class_token", [True, False])
def test_the_log_mlp_is_timms(spec, rng, mode, class_token):
    spec = replace(
        spec,
        class_token=class_token,
        registers=0,
        pool="avg",
        relative=RelativePositions(kind="mlp", shared=True, hidden=8, mode=mode),
    )
    module = RelPosMlp(GRID, HEADS, hidden_dim=8, prefix_tokens=spec.prefix, mode=mode).eval()
    state = {
        name: rng.standard_normal(tuple(value.shape)).astype(np.float32)
        for name, value in module.state_dict().items()
    }
    module.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    tensors = Tensors({f"shared_rel_pos.{name}": value for name, value in state.items()})
    found = relative_bias(spec, tensors, 0)
    expected = module.get_bias()[0].detach().numpy()
    assert largest_difference(biases(found), expected) < 3 * SINGLE
    assert largest_difference(biases(found).transpose(0, 2, 1), expected) > CLEARLY * SINGLE


def test_the_table_is_beits(spec, rng):
    relative = RelativePositions(kind="table", shared=True)
    spec = replace(spec, class_token=True, dist_token=False, registers=0, relative=relative)
    module = RelativePositionBias(GRID, HEADS)
    table = rng.standard_normal(tuple(module.relative_position_bias_table.shape))
    with torch.no_grad():
        module.relative_position_bias_table.copy_(torch.from_numpy(table))
    found = relative_bias(spec, Tensors({"rel_pos_bias.relative_position_bias_table": table}), 3)
    assert largest_difference(biases(found), module().detach().numpy()) < SINGLE
    assert not found.table[:, -1].any()
