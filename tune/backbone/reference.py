"""The meaning of an adapter, as plain slow torch: timm's own blocks and nothing clever.

    1. z = tokens after the position embedding (and norm_pre)
    2. "shallow": prompts join z once, behind the prefix tokens; "deep": fresh prompts join at every
       block and are cut off behind it
    3. tuned LayerNorm parameters replace the backbone's (`apply_layer_norms`), weight deltas and
       scales change its other tensors: diag(out) (W + b a) diag(in) (`with_weight_deltas`)
    4. learned keys and values (`prefix.*`) stand among the keys and values of a block's attention,
       behind any norm and rotation of keys, and are scaled as all keys are; tokens may be merged
       between a block's attention and its MLP (`token_merging`)
    5. pool: the class token, the mean over patches, both side by side, the mean over all but the
       class token, or the model's own attention pooling over the image's tokens
    6. the final norm stands before or after the pool; of two halves it takes each by itself
    7. logits = head

Everything else in vptkit is tested against this file; it is never optimised.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import patch

import numpy as np
import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import Tensor, nn
from torch.nn import functional as F

from vptkit.backbones.merge_schedule import ROTARY_STEPS
from vptkit.errors import BackboneError
from vptkit.formats.adapter import Adapter, read_adapter, with_spec
from vptkit.formats.manifest_schema import FEATURES, LOGITS
from vptkit.images.preprocess import normalize

from .spec_from_timm import spec_from_model
from .timm_backbone import checked_weights
from .token_merging import (
    MergedTokens,
    attention_by_size,
    has_halves,
    match_tokens,
    mean_by_size,
    merge_rows,
    silent,
    size_bias,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.backbones.merge_schedule import TokenMerging

__all__ = [
    "adapter_logits",
    "apply_layer_norms",
    "call_block",
    "embed",
    "features",
    "final",
    "merging_block",
    "reading_features",
    "reference_answers",
    "reference_logits",
    "with_learned_prefix",
    "with_weight_deltas",
]


def _is(model: Any, *kinds: type) -> bool:
    return isinstance(model, kinds)


def embed(model: Any, pixels: Tensor) -> Tensor:
    """Tokens as timm makes them, up to block 0.

    Args:
        model: a timm Vision Transformer.
        pixels: float [B, 3, H, W], normalised.

    Returns:
        [B, T, d]
    """
    z = model.patch_embed(pixels)
    if _is(model, Beit, VisionTransformerRelPos):
        if model.cls_token is not None:
            z = torch.cat([model.cls_token.expand(len(z), -1, -1), z], dim=1)
        position = getattr(model, "pos_embed", None)
        return cast("Tensor", z if position is None else z + position)
    z = model._pos_embed(z)  # noqa: SLF001 - timm has no public name
    if _is(model, Eva):
        norm_pre = getattr(model, "norm_pre", nn.Identity())  # since timm 1.0.16
        return cast("Tensor", norm_pre(z[0]))  # z[1] is the rotary embedding
    return cast("Tensor", model.norm_pre(model.patch_drop(z)))


def call_block(
    model: Any, i: int, z: Tensor, prompts: int = 0, parts: Tensor | None = None
) -> Tensor:
    """Timm's own block i; prompts, behind the prefix tokens, take no position.

    Args:
        model: a timm Vision Transformer.
        i: which block.
        z: [B, prefix + m + N, d]
        prompts: m, how many rows behind the prefix tokens are prompts.
        parts: which share of each of the N patch tokens each patch is [B, N, patches]; None: one each.

    Returns:
        the shape of z.
    """
    block, k = model.blocks[i], model.num_prefix_tokens
    if _is(model, Eva):
        rope = None if model.rope is None else _rotary(model)
        if rope is not None and getattr(model, "rope_mixed", False):
            rope = rope[i]
        if rope is not None and parts is not None:
            rope = _mean_rotation(rope, parts)
        with patch.object(block.attn, "num_prefix_tokens", k + prompts):
            return cast("Tensor", block(z, rope=rope))
    if _is(model, Beit):
        shared = None if model.rel_pos_bias is None else model.rel_pos_bias()
        own = block.attn._get_rel_pos_bias  # noqa: SLF001
        with patch.object(block.attn, "_get_rel_pos_bias", lambda: _unbiased(own(), k, prompts)):
            return cast("Tensor", block(z, shared_rel_pos_bias=_unbiased(shared, k, prompts)))
    if _is(model, VisionTransformerRelPos):
        if model.shared_rel_pos is not None:
            shared = _unbiased(model.shared_rel_pos.get_bias(), k, prompts)
            return cast("Tensor", block(z, shared_rel_pos=shared))
        relative = block.attn.rel_pos
        bias = _unbiased(relative.get_bias(), k, prompts)
        with patch.object(relative, "get_bias", lambda: bias):
            return cast("Tensor", block(z))
    return cast("Tensor", block(z))


def _rotary(model: Any) -> Tensor:
    """Sines and cosines of the patches, as timm's forward pass gets them."""
    if getattr(model.rope, "feat_shape", None) is not None:
        return cast("Tensor", model.rope.get_embed())
    return cast("Tensor", model.rope.get_embed(shape=model.patch_embed.grid_size))


def _mean_rotation(rope: Tensor, parts: Tensor) -> Tensor:
    """[patches, 2 e] or [h, patches, 2 e] → those of merged tokens, [B, 1 or h, N, 2 e]."""
    with torch.autocast(rope.device.type, enabled=False):
        return parts.to(rope.dtype)[:, None] @ rope


def _unbiased(bias: Tensor | None, prefix: int, prompts: int) -> Tensor | None:
    """[.., T, T] → [.., T + m, T + m]: zeros for prompts behind the prefix tokens."""
    if bias is None or prompts == 0:
        return bias
    size = bias.shape[-1] + prompts
    rows = [*range(prefix), *range(prefix + prompts, size)]
    result = bias.new_zeros(*bias.shape[:-2], size, size)
    result[..., torch.tensor(rows)[:, None], torch.tensor(rows)] = bias
    return result


def features(
    model: Any,
    pixels: Tensor,
    prompts: Sequence[Tensor],
    insert: str,
    pool: str,
    norm: str,
    *,
    learned: Mapping[int, tuple[Tensor, Tensor]] | None = None,
    merging: TokenMerging | None = None,
    run: Callable[..., Any] = lambda block, *arguments: block(*arguments),
) -> Tensor:
    """The pooled vector that the head sees.

    Args:
        model: a timm Vision Transformer.
        pixels: float [B, 3, H, W], normalised.
        prompts: [m, d] each; L of them if insert is "deep", one if "shallow", else none.
        insert, pool, norm: as in the adapter file.
        learned: block → its learned keys and values [n, h e].
        merging: how blocks merge tokens.
        run: calls a block with its arguments; a training may have it computed again instead of kept.

    Returns:
        [B, d]; [B, 2 d] of pool "token+avg".
    """
    z = embed(model, pixels)  # [B, T, d]
    tokens = None if merging is None else MergedTokens(z.new_ones(z.shape[:2]))  # of the image
    k = model.num_prefix_tokens
    m = len(prompts[0]) if prompts else 0

    def joined(z: Tensor, prompt: Tensor) -> Tensor:
        rows = prompt.expand(len(z), -1, -1)
        return torch.cat([z[:, :k], rows, z[:, k:]], dim=1)  # [B, T + m, d]

    if insert == "shallow":
        z = joined(z, prompts[0])
    last = len(model.blocks) - 1
    for i in range(last + 1):
        if insert == "deep":
            z = joined(z, prompts[i])
        with with_learned_prefix(model.blocks[i], (learned or {}).get(i)):
            if merging is None or tokens is None:
                z = run(call_block, model, i, z, m)
            else:
                z, tokens = run(merging_block, model, i, z, tokens, merging, m)
        if insert == "deep" and i < last:
            z = torch.cat([z[:, :k], z[:, k + m :]], dim=1)  # [B, T, d]
    size = None if tokens is None else _with_prompts(tokens.size, k, m)
    return final(model, z, k + m if insert != "none" else k, pool, norm, size)


def merging_block(
    model: Any, i: int, z: Tensor, tokens: MergedTokens, merging: TokenMerging, prompts: int = 0
) -> tuple[Tensor, MergedTokens]:
    """Timm's own block i, its attention first, then its MLP; between both, tokens are merged.

    Behind both, where a block does both at once.

    Args:
        model: a timm Vision Transformer.
        i: which block.
        z: [B, prefix + m + N_i, d]
        tokens: what those of the image are made of; there are prefix + N_i.
        merging: r of each block, and whether attention is proportional.
        prompts: m, how many rows behind the prefix tokens are prompts.

    Returns:
        [B, prefix + m + N_i - r, d], and what its prefix + N_i - r tokens of the image are made of.
    """
    block, k, r = model.blocks[i], model.num_prefix_tokens, merging.schedule[i]

    def image_rows(x: Tensor, dim: int) -> Tensor:
        parts = x.narrow(dim, 0, k), x.narrow(dim, k + prompts, x.shape[dim] - k - prompts)
        return torch.cat(parts, dim=dim)

    def called(z: Tensor, tokens: MergedTokens) -> Tensor:
        parts = None if tokens.parts is None else tokens.parts[:, k:, k:]
        return call_block(model, i, z, prompts, parts)

    bias = None
    if merging.proportional:
        bias = size_bias(_with_prompts(tokens.size, k, prompts))
    halves = has_halves(block)
    with attention_by_size(block, bias) as keys, silent(block, "mlp") if halves else nullcontext():
        z = called(z, tokens)
    if r:
        rotary = getattr(model, "rope", None) is not None
        matching = match_tokens(
            image_rows(torch.cat(keys, 1), 2), k, r, ROTARY_STEPS if rotary else 0
        )
        rows, size = merge_rows(image_rows(z, 1), tokens.size, matching)
        z = torch.cat([rows[:, :k], z[:, k : k + prompts], rows[:, k:]], dim=1)
        parts = None
        if rotary:
            parts, _ = merge_rows(tokens.with_parts(), tokens.size, matching)
        tokens = MergedTokens(size, parts)
    if not halves:
        return z, tokens
    with silent(block, "attn"):
        return called(z, tokens), tokens


def _with_prompts(size: Tensor, prefix: int, prompts: int) -> Tensor:
    """Sizes of the image's tokens and, behind the prefix tokens, 1 of each prompt."""
    ones = size.new_ones(len(size), prompts)
    return torch.cat([size[:, :prefix], ones, size[:, prefix:]], dim=1)


def final(
    model: Any, z: Tensor, patches_from: int, pool: str, norm: str, size: Tensor | None = None
) -> Tensor:
    """Pool and final norm.

    Args:
        model: a timm Vision Transformer.
        z: [B, tokens, d] behind the last block.
        patches_from: index of the first patch token.
        pool, norm: as in the adapter file.
        size: how much each token weighs in a mean, [B, tokens]; None: all as much.

    Returns:
        [B, d]; [B, 2 d] of pool "token+avg".
    """

    def mean_from(first: int) -> Tensor:
        if size is None:
            return z[:, first:].mean(dim=1)
        return mean_by_size(z[:, first:], size[:, first:])

    final_norm = model.fc_norm if isinstance(model.norm, nn.Identity) else model.norm
    if norm == "before_pool":
        z = final_norm(z)
    if pool == "token":
        f = z[:, 0]
    elif pool == "avg":
        f = mean_from(patches_from)
    elif pool == "token+avg":
        f = torch.stack([z[:, 0], mean_from(patches_from)], dim=1)  # [B, 2, d]
    elif pool == "map":
        f = _attention_pooled(model, z, patches_from, size)
    else:  # avg_prompts
        f = mean_from(int(model.cls_token is not None))
    return (final_norm(f) if norm == "after_pool" else f).flatten(1)


def _attention_pooled(model: Any, z: Tensor, patches_from: int, size: Tensor | None) -> Tensor:
    """Timm's own attention pooling of the image's tokens; Eva's takes the prefix tokens along."""
    whole = _is(model, Eva) or getattr(model, "pool_include_prefix", False)

    def image_rows(x: Tensor) -> Tensor:
        rows = x[:, patches_from:]
        return torch.cat([x[:, : model.num_prefix_tokens], rows], dim=1) if whole else rows

    if size is None:
        return cast("Tensor", model.attn_pool(image_rows(z)))
    with attention_by_size(model.attn_pool, size_bias(image_rows(size))):
        return cast("Tensor", model.attn_pool(image_rows(z)))


def apply_layer_norms(model: nn.Module, adapter: Adapter) -> None:
    """Put an adapter's tuned LayerNorm parameters into a model, in place."""
    state = model.state_dict()
    for name, value in adapter.layer_norms().items():
        state[name].copy_(torch.from_numpy(np.array(value)))


@contextmanager
def with_weight_deltas(model: nn.Module, adapter: Adapter) -> Iterator[None]:
    """A model with an adapter's weight deltas while the context lasts; then it is as before.

    Read off the tensors' names here, apart from `vptkit.formats.weight_deltas`, which the folds use.
    """
    state, tensors = model.state_dict(), adapter.tensors
    before: dict[str, Tensor] = {}

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(np.array(tensors[name])).double()

    def change(name: str, value: Tensor) -> None:
        before.setdefault(name, state[name].clone())
        state[name].copy_(value.reshape(state[name].shape))

    try:
        with torch.no_grad():
            for name in sorted(tensors):  # all that is added comes before what multiplies
                kind, _, rest = name.partition(".")
                if kind == "delta" and rest in state:
                    change(rest, state[rest].double() + tensor(name))
                elif kind == "delta" and rest.endswith(".a"):
                    weight, b = f"{rest[:-2]}.weight", tensor(f"{name[:-2]}.b")
                    change(weight, state[weight].double().flatten(1) + b @ tensor(name))
                elif kind == "scale":
                    module, _, side = rest.rpartition(".")
                    rows = state[f"{module}.weight"].double().flatten(1)
                    factor = tensor(name)[:, None] if side == "out" else tensor(name)[None]
                    change(f"{module}.weight", rows * factor)
        yield
    finally:
        with torch.no_grad():
            for name, value in before.items():
                state[name].copy_(value)


@contextmanager
def with_learned_prefix(block: nn.Module, pair: tuple[Tensor, Tensor] | None) -> Iterator[None]:
    """A block whose one attention has learned keys and values [n, h e] too, while the context lasts.

    Timm's attentions meet in `F.scaled_dot_product_attention`, whose keys and values are joined here.

    Raises:
        BackboneError: the block attends in another way.
    """
    if pair is None:
        yield
        return
    plain, calls = F.scaled_dot_product_attention, 0

    def joined(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Any = None, **rest: Any) -> Tensor:
        nonlocal calls
        calls += 1
        rows = [x.reshape(len(x), -1, k.shape[-1]).transpose(0, 1) for x in pair]  # [h, n, e]
        rows = [x.repeat_interleave(k.shape[1] // len(x), dim=0) for x in rows]
        k, v = (
            torch.cat([own, x.to(own).expand(len(own), -1, -1, -1)], dim=2)
            for own, x in zip((k, v), rows, strict=True)
        )
        mask = None if attn_mask is None else F.pad(attn_mask, (0, len(pair[0])))
        return plain(q, k, v, attn_mask=mask, **rest)

    attentions = [part for part in block.modules() if hasattr(part, "fused_attn")]
    with ExitStack() as stack:
        for part in attentions:
            stack.enter_context(patch.object(part, "fused_attn", new=True))
        stack.enter_context(patch.object(F, "scaled_dot_product_attention", joined))
        yield
    if calls != 1:
        raise BackboneError(
            f"learned keys and values need one attention in a block, {type(block).__name__} has {calls}"
        )


def adapter_logits(
    model: Any, adapter: Adapter, pixels: Tensor, *, layer_norms_applied: bool = False
) -> Tensor:
    """Logits of an adapter on normalised pixels, in the pixels' precision.

    Args:
        model: the timm backbone; its LayerNorms are overwritten with the adapter's, its other
            tensors are afterwards as before.
        adapter: any adapter for this backbone.
        pixels: float [B, 3, H, W].
        layer_norms_applied: the caller has done that already.

    Returns:
        [B, C]
    """

    def tensor(value: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.array(value)).to(pixels.dtype)

    if not layer_norms_applied:
        apply_layer_norms(model, adapter)
    sites = {"none": 0, "shallow": 1, "deep": len(model.blocks)}[adapter.insert]
    prompts = [tensor(adapter.prompts(i)) for i in range(sites)]
    with with_weight_deltas(model, adapter):
        f = features(
            model,
            pixels,
            prompts,
            adapter.insert,
            adapter.pool,
            adapter.norm,
            learned={
                int(name.split(".")[1]): (
                    tensor(keys),
                    tensor(adapter.tensors[f"{name[:-4]}values"]),
                )
                for name, keys in adapter.tensors.items()
                if name.startswith("prefix.") and name.endswith(".keys")
            },
            merging=adapter.merging,
        )
    head = adapter.tensors["head.weight"], adapter.tensors["head.bias"]
    return F.linear(f, tensor(head[0]), tensor(head[1]))


@torch.no_grad()
def reference_logits(
    adapter: Adapter | Path, weights: Path | None, images: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """The reference's answer for prepared images.

    Args:
        adapter: read, or its file.
        weights: the backbone's weights; None asks timm's hub.
        images: uint8 [B, H, W, 3], resized and cropped.

    Returns:
        float32 [B, C]

    Raises:
        AdapterError: the adapter is not readable, or does not fit its backbone.
        BackboneError: the weights are not those that were tuned.
    """
    return reference_answers(adapter, weights, images, (LOGITS,))[LOGITS]


@torch.no_grad()
def reference_answers(
    adapter: Adapter | Path,
    weights: Path | None,
    images: NDArray[np.uint8],
    outputs: Sequence[str],
) -> dict[str, NDArray[np.float32]]:
    """Logits [B, C], features f [B, f], of which logits = W f + b, or both; of one backbone.

    Args:
        adapter, weights, images: as of `reference_logits`.
        outputs: "logits" and "features", or one of them.

    Raises:
        AdapterError, BackboneError: see there.
    """
    if not isinstance(adapter, Adapter):
        adapter = read_adapter(adapter)
    model, _ = checked_weights(adapter, weights)
    with_spec(adapter, spec_from_model(model, adapter.backbone.name))
    pixels = torch.from_numpy(normalize(images, adapter.preprocess))
    readers = {LOGITS: adapter, FEATURES: reading_features(adapter)}
    return {
        name: torch.cat(
            [adapter_logits(model, readers[name], part) for part in torch.split(pixels, 16)]
        ).numpy()
        for name in outputs
    }


def reading_features(adapter: Adapter) -> Adapter:
    """The same adapter with the unit matrix as its head: its logits are the features, exactly."""
    size = np.asarray(adapter.tensors["head.weight"]).shape[1]
    kept = {k: v for k, v in adapter.tensors.items() if not k.startswith(("golden.", "head."))}
    head = {"head.weight": np.eye(size, dtype=np.float32), "head.bias": np.zeros(size, np.float32)}
    return replace(adapter, labels=tuple(map(str, range(size))), tensors={**kept, **head})
