"""Checkpoints of E²VPT's code: made here in its layout, its formulas written anew."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from tests.support.foreign_checkpoints import (  # noqa: E402
    HEAD,
    D,
    L,
    M,
    draw,
    pixels_of,
    require_parity,
    supervised_names,
    vpt_state,
)
from vptkit.errors import AdapterError  # noqa: E402
from vptkit.tune.importers.e2vpt_layout import from_e2vpt  # noqa: E402

H, E, N = 2, 16, 3  # heads, their width, learned keys
ATTN = "enc.transformer.encoder.layer.{}.attn."


def forward(model: Any, pixels: Any, rows: list[Any], keys: list[Any], values: list[Any]) -> Any:
    """Attention over the tokens' keys and values, and those that were learned behind them."""
    b = len(pixels)
    x = model.patch_embed(pixels)
    x = torch.cat((model.cls_token.expand(b, -1, -1), x), dim=1) + model.pos_embed
    for i, block in enumerate(model.blocks):
        if rows:
            rest = x[:, 1 + (len(rows[0]) if i else 0) :]
            x = torch.cat((x[:, :1], rows[i].expand(b, -1, -1), rest), dim=1)
        y = block.attn.qkv(block.norm1(x)).reshape(b, -1, 3, H, E)
        q, k, v = y.permute(2, 0, 3, 1, 4)  # [B, h, T, e]
        if keys[i] is not None:
            k = torch.cat((k, keys[i].expand(b, -1, -1, -1)), dim=2)
            v = torch.cat((v, values[i].expand(b, -1, -1, -1)), dim=2)
        p = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(E), dim=-1)
        x = x + block.attn.proj((p @ v).transpose(1, 2).reshape(b, -1, D))
        x = x + block.mlp(block.norm2(x))
    return model.norm(x)[:, 0] @ HEAD["weight"].T + HEAD["bias"]


def learned(kind: str) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """(tensors of a checkpoint, keys, values) of each block."""
    keys = [draw(H, N, E, seed=20 + i) for i in range(L)]
    values = [draw(H, N, E, seed=30 + i) for i in range(L)]
    names = {
        "shared": ["deep_QKV_embeddings"] * 2,
        "across": ["inherited_layer_K", "inherited_layer"],
    }
    names |= {"each": ["deep_QKV_embeddings_K", "deep_QKV_embeddings_V"]}
    state = {}
    if kind == "shallow":
        keys[1] = values[1] = None
    elif kind == "shared":
        values = keys
    elif kind == "across":
        keys, values = keys[:1] * L, values[:1] * L
        state["enc.transformer.encoder.deep_QKV_embeddings_K"] = draw(H, N, E)  # of no effect there
    for i, pair in enumerate(zip(keys, values, strict=True)):
        for name, value in zip(names.get(kind, names["each"]), pair, strict=True):
            if value is not None:
                state[ATTN.format(i) + name] = value
    return state, keys, values


@pytest.mark.parametrize("kind", ["shared", "each", "across", "shallow"])
def test_keys_and_values_beside_deep_prompts(bring, make_vit, kind):
    model = make_vit()
    state, rows = vpt_state(model)
    more, keys, values = learned(kind)
    adapter = bring({"model": state | more}, "e2vpt")
    pixels = pixels_of(adapter)
    require_parity(adapter, forward(model, pixels, rows, keys, values))
    assert (adapter.method, adapter.insert, adapter.format) == ("e2vpt", "deep", "vptkit.adapter/2")
    assert adapter.learned_counts() == dict.fromkeys(range(1 if kind == "shallow" else L), N)
    assert (adapter.pool, adapter.preprocess.interpolation) == ("token", "bilinear")
    if kind == "each":
        with pytest.raises(AssertionError):
            require_parity(adapter, forward(model, pixels, rows, values, keys))
        with pytest.raises(AdapterError, match="deep_QKV_embeddings_K: pass --format e2vpt"):
            bring(state | more, "vpt")


def test_pruned_tokens_and_segments_are_zeros(bring, make_vit):
    """A segment's mask is repeated over the channels; what was pruned stays a token."""
    model = make_vit()
    state, rows = vpt_state(model, project=7)  # masks act behind the projection
    more, keys, values = learned("shared")
    tokens, pieces = torch.tensor([1.0, 0, 1, 1]), (draw(M, 4, seed=8) > 0).float()
    name = "enc.transformer.prompt_soft_tokens_{}mask_cls_token"
    more |= {name.format(""): tokens, name.format("pieces_"): pieces}
    adapter = bring(state | more, "e2vpt")
    masked = [row * tokens[:, None] * pieces.repeat(1, D // 4) for row in rows]
    require_parity(adapter, forward(model, pixels_of(adapter), masked, keys, values))
    assert adapter.prompt_length == M
    np.testing.assert_array_equal(adapter.prompts(1)[1], np.zeros(D))
    with pytest.raises(AdapterError, match="a mask is of 3 prompts, there are 4"):
        bring(state | more | {name.format(""): tokens[:3]}, "e2vpt")
    with pytest.raises(AdapterError, match="5 segments, which do not divide 32"):
        bring(state | more | {name.format("pieces_"): torch.ones(M, 5)}, "e2vpt")


def test_keys_and_values_alone(bring, make_vit):
    model = make_vit()
    more, keys, values = learned("each")
    head = {f"head.last_layer.{k}": v for k, v in HEAD.items()}
    for none in ({}, {"enc.transformer.prompt_embeddings": torch.zeros(1, 0, D)}):
        adapter = bring(supervised_names(model) | head | more | none, "e2vpt")
        require_parity(adapter, forward(model, pixels_of(adapter), [], keys, values))
        assert (adapter.insert, bring.document["backbone_compared"]) == (
            "none",
            len(model.state_dict()),
        )
    with pytest.raises(AdapterError, match="does not say how its model pools"):
        bring(more | head, "e2vpt")


def test_what_cannot_be_known_is_refused(tiny_spec):
    h, e, tokens = tiny_spec.heads, tiny_spec.head_width, tiny_spec.tokens
    names = {
        "deep_QKV_embeddings_addition": (
            np.zeros((h, 3, e), np.float32),
            "QUERY_PROMPT_MODE 1 to 3",
        ),
        "deep_QKV_embeddings": (np.zeros((h, tokens + 2, e + 1), np.float32), "prompts of queries"),
        "deep_QKV_embeddings_K": (np.zeros((h, 3, e), np.float32), "a pair of _K and _V"),
        "inherited_layer": (np.zeros((h, tokens, e), np.float32), "does not tell which"),
        "other": (np.zeros(3, np.float32), "--format vpt"),
    }
    for name, (value, words) in names.items():
        with pytest.raises(AdapterError, match=words):
            from_e2vpt({ATTN.format(0) + name: value}, tiny_spec)
    far = {ATTN.format(77) + "deep_QKV_embeddings": np.zeros((h, 3, e), np.float32)}
    with pytest.raises(AdapterError, match="block 77, the backbone has"):
        from_e2vpt(far, tiny_spec)
