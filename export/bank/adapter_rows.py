"""What one adapter puts into a bank: prompt rows behind their LayerNorm, LayerNorms, a folded head.

numpy alone, and of the backbone nothing but its norms: an adapter can be added on a board.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import AdapterError
from vptkit.export.fold.block_tensors import Tensors
from vptkit.export.fold.fold_network import fold_head
from vptkit.export.fold.prefix_keys_values import prompts_seen
from vptkit.formats.adapter import require_backbone
from vptkit.formats.bank_tables import AdapterRows, BankShape, norm_slots, open_norms
from vptkit.formats.manifest_schema import SINGLE

from .linear_rows import changes_key_bias, delta_problems, linear_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vptkit.backbones.merge_schedule import TokenMerging
    from vptkit.export.fold.block_tensors import Array
    from vptkit.formats.adapter import Adapter
    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.formats.manifest_schema import Task
    from vptkit.images.preprocess import Preprocess

__all__ = ["Bank", "has_outer_norm", "require_member", "rows_of", "tunes_blocks"]

GOLDEN_IMAGES = 2  # of each adapter: a bank of fifty would otherwise carry hundreds


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """What every adapter of a bank must agree with.

    Attributes:
        spec, sha256: the backbone and the digest of its weights.
        shape: what the bank has room for.
        pool, norm, preprocess: constants of the graph.
        task: one label an image, or several; the graph has scores, or not.
        merging: how the graph merges tokens.
        norms: the backbone's own norms by timm name, `{norm}.weight` and `{norm}.bias` [d], and
            its LayerScales where changed linears stand before them.
    """

    spec: BackboneSpec
    sha256: str
    shape: BankShape
    pool: str
    norm: str
    preprocess: Preprocess
    norms: Mapping[str, NDArray[Any]]
    task: Task = SINGLE
    merging: TokenMerging | None = None


def tunes_blocks(adapter: Adapter, spec: BackboneSpec) -> bool:
    """Whether tuned LayerNorms differ from the backbone's in the blocks (or in norm_pre)."""
    return bool(_norm_names(adapter) & set(norm_slots(spec)))


def require_member(adapter: Adapter, bank: Bank) -> None:
    """Refuse an adapter that a bank cannot take.

    Raises:
        BackboneError: it was tuned on another backbone.
        AdapterError: its kind or its size does not fit; the message says what does.
    """
    require_backbone(
        adapter.backbone,
        bank.sha256,
        f"adapter {adapter.name!r}",
        remedy="A bank's adapters share one backbone: export a bank of its own for this one.",
    )
    for problem in _problems(adapter, bank):
        raise AdapterError(f"adapter {adapter.name!r}: {problem}")


def rows_of(adapter: Adapter, bank: Bank) -> AdapterRows:
    """The rows of an adapter, computed in float64.

    Prompts are stored as the blocks see them (`prompts_seen`), behind γ and β where the graph has
    those; it makes keys and values of them, with the adapter's own weight deltas.

    Args:
        adapter: one that `require_member` let pass.
        bank: what it becomes a part of.
    """
    spec = bank.spec
    tensors = Tensors(bank.norms, adapter)
    weight = bias = None
    if bank.shape.norms:
        found = [tensors.norm(name) for name in norm_slots(spec)]
        weight = _single(np.stack([norm.gamma for norm in found]))
        bias = _single(np.stack([norm.beta for norm in found]))
    prompts = None
    if adapter.insert == "deep":
        rows = [_prompt_rows(adapter, bank, tensors, i) for i in range(spec.depth)]
        prompts = _single(np.stack(rows))
    norm = tensors.norm(str(spec.final_norm)) if has_outer_norm(adapter, spec) else None
    features: tuple[Array, ...] = ()
    if norm is not None and bank.shape.feature_norm:  # of two halves each has it
        features = tuple(np.tile(part, bank.shape.features // spec.width) for part in norm)
    head = fold_head(adapter, None if features else norm)
    # those of an adapter that was tuned without merging are another network's
    golden = adapter.golden() if adapter.merging == bank.merging else None
    if golden is not None:
        golden = golden[0][:GOLDEN_IMAGES], golden[1][:GOLDEN_IMAGES].astype(np.float32)
    return AdapterRows(
        prompts=prompts,
        norm_weight=weight,
        norm_bias=bias,
        head_weight=_single(head.w),
        head_bias=_single(head.b),
        feature_weight=_single(features[0]) if features else None,
        feature_bias=_single(features[1]) if features else None,
        linears=linear_rows(adapter, spec, tensors),
        golden=golden,
    )


def _prompt_rows(adapter: Adapter, bank: Bank, tensors: Tensors, i: int) -> Array:
    name = f"blocks.{i}.norm1"
    opened = open_norms(bank.spec, bank.shape.linears)
    stays = bank.shape.norms or name in opened
    affine = tensors.norm(opened.get(name, name)) if stays else None
    return prompts_seen(bank.spec, adapter.prompts(i), affine)


def _problems(adapter: Adapter, bank: Bank) -> list[str]:
    """Why a bank cannot take an adapter, as sentences; the first is what the user reads."""
    spec, shape, problems = bank.spec, bank.shape, []
    baked = "Export it alone, as a baked bundle."
    if adapter.task != bank.task:
        problems.append(
            f"its task is {adapter.task!r}, that of the bank {bank.task!r}: a bank's adapters give one "
            f"label an image, or several, all alike. {baked}"
        )
    if adapter.insert == "shallow":
        problems.append(
            "its prompts are shallow: they live on as tokens in every block, which makes another "
            f"graph. A bank takes deep prompts, tuned LayerNorms and plain heads. {baked}"
        )
    if adapter.learned_counts():
        problems.append(
            "it has learned keys and values (prefix.*), and a bank's tables hold rows of which its "
            f"graph makes keys and values. {baked}"
        )
    if adapter.pool == "avg_prompts":
        problems.append(
            "pool 'avg_prompts' reads the prompts' own outputs, which a bank does not compute. "
            f"{baked}"
        )
    came = (adapter.pool, adapter.norm, adapter.preprocess.to_json())
    if came != (bank.pool, bank.norm, bank.preprocess.to_json()):
        problems.append(
            f"pool {adapter.pool!r}, norm {adapter.norm!r} and preprocessing {came[2]} are built "
            f"into the graph, and this bank has {bank.pool!r}, {bank.norm!r} and "
            f"{bank.preprocess.to_json()}. {baked}"
        )
    if adapter.backbone.spec not in (None, spec):
        problems.append("its backbone's description differs from the bank's")
    if adapter.prompt_length > shape.prompts:
        problems.append(
            f"{adapter.prompt_length} prompts, but the bank has room for {shape.prompts}. Export "
            f"the bank again with --bank-prompts {adapter.prompt_length}"
        )
    if len(adapter.labels) > shape.classes:
        problems.append(
            f"{len(adapter.labels)} classes, but the bank has room for {shape.classes}. Export "
            f"the bank again with --bank-classes {len(adapter.labels)}"
        )
    problems += _norm_problems(adapter, bank)
    problems += _merging_problems(adapter, bank)
    return problems + delta_problems(adapter, spec, shape.linears)


def _norm_problems(adapter: Adapter, bank: Bank) -> list[str]:
    tuned, problems = _norm_names(adapter), []
    blocks = tuned & set(norm_slots(bank.spec))
    if blocks and not bank.shape.norms:
        problems.append(
            f"it tunes LayerNorms ({min(blocks)} and others), and the bank has none: they are "
            "folded into its graph. Export the bank again with --bank-layer-norms yes"
        )
    final = set() if _inside_pool(adapter) else {bank.spec.final_norm or ""}
    others = tuned - set(norm_slots(bank.spec)) - final
    if others:
        problems.append(
            f"it tunes {min(others)}, which a bank cannot look up. Export it "
            "alone, as a baked bundle."
        )
    return problems


def _merging_problems(adapter: Adapter, bank: Bank) -> list[str]:
    """Which tokens merge is in the graph; by what they merge must be in it, too."""
    problems = []
    if adapter.merging not in (None, bank.merging):
        problems.append(
            f"it was tuned with {_told(adapter.merging)}, and the graph of this bank has "
            f"{_told(bank.merging)}. Export it alone, as a baked bundle, or a bank with --merge"
        )
    if bank.merging is not None and changes_key_bias(adapter, bank.spec):
        problems.append(
            "it changes the bias of keys, by which tokens merge, and a bank has no table for that. "
            "Export it alone, as a baked bundle"
        )
    return problems


def _told(merging: TokenMerging | None) -> str:
    if merging is None:
        return "no tokens merged"
    return f"tokens merged ({','.join(map(str, merging.schedule))}, {merging.attention} attention)"


def _norm_names(adapter: Adapter) -> set[str]:
    """The LayerNorms that an adapter tunes, by timm name."""
    return {name.rpartition(".")[0] for name in adapter.layer_norms()}


def has_outer_norm(adapter: Adapter, spec: BackboneSpec) -> bool:
    """Whether the final norm stands before the head, so that its affine is an adapter's own."""
    return spec.final_norm is not None and not _inside_pool(adapter)


def _inside_pool(adapter: Adapter) -> bool:
    """Whether the final norm stands before attention pooling, not before the head."""
    return adapter.pool == "map" and adapter.norm == "before_pool"


def _single(value: Array) -> NDArray[np.float32]:
    return np.ascontiguousarray(value, dtype=np.float32)
